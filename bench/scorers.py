"""How well scorers tell good answers from bad ones, on texts that nothing was tuned on."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

from bench.environment import environment
from services.metrics.declarations import Absent, Subject, Value
from services.metrics.scorers.coherence import coherence
from services.metrics.scorers.completeness import completeness
from services.metrics.scorers.refusal import refuses
from services.metrics.scorers.relevance import relevance
from services.metrics.text import split_sentences

TEXTS = Path(__file__).parent / "texts"
SHUFFLES = 50
SEED = 2024


def texts(name: str) -> Any:
    """The labelled texts of a file."""
    return yaml.safe_load((TEXTS / f"{name}.yaml").read_text(encoding="utf-8"))


def number(value: Value) -> float:
    """A score that has to be there."""
    if isinstance(value, Absent):
        raise TypeError(value.reason)
    return value


def area_under_curve(positive: list[float], negative: list[float]) -> float:
    """How often a positive scores above a negative, ties by half."""
    wins = sum((high > low) + 0.5 * (high == low) for high in positive for low in negative)
    return wins / (len(positive) * len(negative))


def relevance_figures(pairs: list[dict[str, str]]) -> dict[str, float]:
    """Answers with their own prompt, against the same answers with every other prompt."""
    right = [number(relevance(Subject(pair["answer"], prompt=pair["prompt"]))) for pair in pairs]
    wrong = [
        number(relevance(Subject(answer["answer"], prompt=prompt["prompt"])))
        for prompt in pairs
        for answer in pairs
        if prompt is not answer
    ]
    return {"auc": round(area_under_curve(right, wrong), 4), "right": len(right), "wrong": len(wrong)}


def shuffled(sentences: list[str], source: random.Random) -> list[str]:
    """The sentences in another order than their own."""
    order = sentences[:]
    while order == sentences:
        source.shuffle(order)
    return order


def coherence_figures(answers: list[str]) -> dict[str, float]:
    """Answers against the same sentences in random orders."""
    source = random.Random(SEED)  # noqa: S311 (an experiment that can be repeated)
    above = compared = 0
    for answer in answers:
        sentences = split_sentences(answer)
        original = number(coherence(Subject(" ".join(sentences))))
        for _ in range(SHUFFLES):
            other = number(coherence(Subject(" ".join(shuffled(sentences, source)))))
            above += original > other
            compared += 1
    return {
        "original_above_shuffled": round(above / compared, 4),
        "texts": len(answers),
        "shuffles": compared,
    }


def refusal_figures(labelled: dict[str, list[str]]) -> dict[str, Any]:
    """Precision and recall, and the cases that were told wrongly."""
    missed = [answer for answer in labelled["refusals"] if not refuses(Subject(answer))]
    false = [answer for answer in labelled["answers"] if refuses(Subject(answer))]
    found = len(labelled["refusals"]) - len(missed)
    return {
        "precision": round(found / (found + len(false)), 4),
        "recall": round(found / len(labelled["refusals"]), 4),
        "refusals": len(labelled["refusals"]),
        "answers": len(labelled["answers"]),
        "missed": missed,
        "false": false,
    }


def completeness_figures(cases: list[dict[str, str]]) -> dict[str, float]:
    """Complete answers against incomplete ones to the same prompt, and against themselves cut off."""
    above = cut = 0
    for case in cases:
        complete = number(completeness(Subject(case["complete"], prompt=case["prompt"], finish_reason="STOP")))
        above += complete > number(completeness(Subject(case["incomplete"], prompt=case["prompt"])))
        cut += complete > number(completeness(Subject(case["complete"], prompt=case["prompt"], finish_reason="LENGTH")))
    return {
        "complete_above_incomplete": round(above / len(cases), 4),
        "complete_above_cut_off": round(cut / len(cases), 4),
        "cases": len(cases),
    }


def main() -> int:
    """Prints the figures."""
    answers = texts("answers_held_out")
    figures = {
        "relevance": relevance_figures(answers),
        "coherence": coherence_figures([each["answer"] for each in answers]),
        "refusal": refusal_figures(texts("refusals_held_out")),
        "refusal_fresh": refusal_figures(texts("refusals_fresh")),
        "completeness": completeness_figures(texts("completeness_held_out")),
    }
    for name, figure in figures.items():
        shown = ", ".join(f"{key} {value}" for key, value in figure.items() if not isinstance(value, list))
        print(f"{name}: {shown}", file=sys.stderr)
    print(json.dumps({"bench": "scorers", **environment(), **figures}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
