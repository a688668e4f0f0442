from __future__ import annotations

import pytest

from services.metrics.declarations import Absent, Subject
from services.metrics.scorers.completeness import completeness


def score(prompt: str, answer: str, finish_reason: str = "") -> object:
    return completeness(Subject(answer, prompt=prompt, finish_reason=finish_reason))


@pytest.mark.parametrize(
    ("prompt", "answer", "share"),
    [
        ("List three fruits.", "- apple\n- pear\n- plum", 1.0),
        ("List three fruits.", "Apples, pears and plums.", 1.0),
        ("List three fruits.", "First apples. Second pears. Third plums.", 1.0),
        ("List three fruits.", "- apple\n- pear", 0.0),
        ("List three fruits and name two animals.", "- a\n- b\n- c\n- d", 0.5),
        ("Answer in one sentence.", "Yes. It is.", 0.0),
        ("Answer as JSON in at most 5 words.", '```json\n{"a": 1}\n```', 1.0),
        ("Make a table of rivers.", "| a | b |\n|---|---|\n| 1 | 2 |", 1.0),
        ("Answer in bullet points.", "No bullets here.", 0.0),
        ("Write a script that prints a line.", "import sys\nprint(1)", 1.0),
        ("Compare trains and aeroplanes.", "Trains are slower.", 0.5),
        ("Who wrote Faust? Where is Prague?", "Goethe wrote Faust.", 0.5),
        ("List three fruits.", "I'm sorry, but I can't help with a list, fruits, or pears.", 0.0),
        ("List three fruits.", "", 0.0),
    ],
)
def test_share_of_asks_that_are_met(prompt: str, answer: str, share: float) -> None:
    assert score(prompt, answer) == pytest.approx(share)


def test_being_cut_off_counts_as_one_more_ask() -> None:
    prompt, answer = "List three fruits.", "- apple\n- pear\n- plum"
    assert score(prompt, answer, "STOP") == 1.0
    assert score(prompt, answer, "LENGTH") == 0.5


@pytest.mark.parametrize(("prompt", "reason"), [("", "no prompt"), ("Tell me about tea.", "nothing")])
def test_absent(prompt: str, reason: str) -> None:
    value = score(prompt, "Tea is a drink.")
    assert isinstance(value, Absent)
    assert reason in value.reason


@pytest.mark.parametrize("answer", ["\n" * 100_000, "\t" * 100_000, ", " * 100_000, "[" * 300_000, "def " * 50_000])
def test_hostile_answers_are_read_in_linear_time(answer: str) -> None:
    assert score("List three fruits as JSON. Write a script. In one sentence, who?", answer) is not None
