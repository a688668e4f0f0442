"""Whether an answer meets a rubric, as a model judges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from services.metrics.declarations import Parameters, Scorer, binary, unit


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the rubric must say what counts")
    return text


class JudgeParameters(Parameters):
    """Who judges, by what, and when an answer passes."""

    model: str = Field(
        max_length=256,
        pattern=r"^[^/\s]+/\S+$",
        description='The model that judges, as "provider/model". It has to follow JSON schemas.',
    )
    rubric: Annotated[str, AfterValidator(_not_blank)] = Field(
        min_length=1, max_length=20_000, description="What counts, in words."
    )
    samples: int = Field(
        3, ge=2, le=32, description="How often each answer is judged, 2 - 32: that many paid calls, and the interval."
    )
    threshold: float = Field(0.6, ge=0.0, le=1.0, description="The score from which an answer passes, 0 - 1.")
    max_output_tokens: int = Field(
        1_024, ge=1, le=100_000, description="The most output tokens of a verdict; the hold reserves that much."
    )


JUDGE = Scorer(
    name="judge",
    version="1",
    description="Model-based: how far a model that judges finds the rubric met. Every verdict is a paid call.",
    citation="L. Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena (2023), arXiv:2306.05685; "
    "verdicts and intervals: services/metrics/judge/rubric.py.",
    scores=(
        unit("Mean of the judge's scores, from 0 (fails the rubric altogether) to 1 (meets it altogether)."),
        binary("1 where the whole interval is at or above the threshold, 0 below it, absent if undecided.", "passed"),
    ),
    parameters=JudgeParameters,
    needs_prompt=True,
    needs_model=True,
)
