from pathlib import Path

import pytest
import yaml

from services.metrics.declarations import Absent, NoParameters, Subject
from services.metrics.scorers.relevance import RELEVANCE, relevance

PAIRS = [
    (pair["prompt"], pair["answer"])
    for pair in yaml.safe_load(Path(__file__).with_name("relevance_pairs.yaml").read_text(encoding="utf-8"))
]


def score(prompt: str, answer: str) -> float:
    value = relevance(Subject(answer, prompt=prompt))
    assert isinstance(value, float)
    return value


def test_the_right_prompt_is_told_from_another() -> None:
    """Area under the curve of right against wrong prompts over all pairs."""
    right = [score(prompt, answer) for prompt, answer in PAIRS]
    wrong = [
        score(prompt, answer) for i, (prompt, _) in enumerate(PAIRS) for j, (_, answer) in enumerate(PAIRS) if i != j
    ]
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    assert wins / (len(right) * len(wrong)) >= 0.9


@pytest.mark.parametrize(
    ("prompt", "answer", "reason"),
    [("", "text", "no prompt"), ("is it?", "volcano", "prompt has no"), ("volcano", "", "answer has no")],
)
def test_absent_where_there_is_nothing_to_compare(prompt: str, answer: str, reason: str) -> None:
    (value,) = RELEVANCE.function(Subject(answer, prompt=prompt), NoParameters())
    assert isinstance(value, Absent)
    assert reason in value.reason


def test_the_prompt_itself_is_fully_relevant() -> None:
    assert score("Volcanoes of Iceland", "Iceland and its volcanoes") == pytest.approx(1.0)
