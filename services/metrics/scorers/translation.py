"""BLEU, chrF and TER: overlap with references as machine translation measures it, by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from services.metrics.declarations import (
    Absent,
    Direction,
    Parameters,
    Scale,
    ScoreDeclaration,
    Scorer,
    Subject,
    Value,
)
from services.metrics.scorers.matching import NO_REFERENCE

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

# BLEU and chrF count n-grams in Python: about 5 microseconds a character.
_CHARACTERS_MAX = 200_000
# TER looks for the best of very many shifts: 100 words against 100 others in random order take about three seconds.
_TER_WORD_PAIRS_MAX = 10_000

BLANK_REFERENCES = Absent("every reference is blank")
TOO_LONG = Absent(f"answer and references have more than {_CHARACTERS_MAX:,} characters together; score a part of them")
TOO_LONG_FOR_TER = Absent(
    f"words of the answer times words of the references exceed {_TER_WORD_PAIRS_MAX:,}; score it sentence by sentence"
)


def _percentage(description: str) -> ScoreDeclaration:
    return ScoreDeclaration("", Scale.REAL, Direction.HIGHER_IS_BETTER, description, 0.0, 100.0)


def _undefined(subject: Subject) -> Absent | None:
    """Why the answer can't be compared with its references; None where it can."""
    if not subject.references:
        return NO_REFERENCE
    if not any(map(str.strip, subject.references)):
        return BLANK_REFERENCES
    if len(subject.answer.raw) + sum(map(len, subject.references)) > _CHARACTERS_MAX:
        return TOO_LONG
    return None


def _sentence_score(metric: Metric, subject: Subject) -> float:
    return float(metric.sentence_score(subject.answer.raw, subject.references).score)


def _signature(*settings: str) -> str:
    """A signature as sacrebleu prints it for sentences with their own number of references."""
    return "|".join(("nrefs:var", *settings, f"version:{version('sacrebleu')}"))


class BleuParameters(Parameters):
    """How BLEU splits and compares."""

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = Field(
        default="13a",
        description='sacrebleu\'s tokenizer: "13a" (WMT), "intl", "zh" for Chinese, "char" or "none" (white space).',
    )
    lowercase: bool = Field(default=False, description="Whether case is ignored.")


@lru_cache(maxsize=16)
def _bleu_metric(tokenize: str, *, lowercase: bool) -> Metric:
    from sacrebleu.metrics.bleu import BLEU as Bleu  # noqa: N811 (an acronym in capitals is no constant)

    return Bleu(tokenize=tokenize, lowercase=lowercase, effective_order=True)


def _bleu(subject: Subject, parameters: BleuParameters) -> Sequence[Value]:
    metric = _bleu_metric(parameters.tokenize, lowercase=parameters.lowercase)
    return (_undefined(subject) or _sentence_score(metric, subject),)


def _bleu_signature(parameters: BleuParameters) -> str:
    case = "lc" if parameters.lowercase else "mixed"
    return _signature(f"case:{case}", "eff:yes", f"tok:{parameters.tokenize}", "smooth:exp")


BLEU = Scorer(
    name="bleu",
    version="1",
    description="How many runs of up to four words the answer shares with the references: sentence BLEU.",
    citation="K. Papineni et al. 2002; M. Post 2018 (sacrebleu): effective order, exponential smoothing.",
    scores=(_percentage("Sentence BLEU, 0 - 100, over all references at once."),),
    function=_bleu,
    parameters=BleuParameters,
    needs_reference=True,
    signature=_bleu_signature,
)


class ChrfParameters(Parameters):
    """What chrF counts."""

    char_order: int = Field(default=6, ge=1, le=10, description="Longest run of characters.")
    word_order: int = Field(default=0, ge=0, le=4, description="Longest run of words; 2 is chrF++.")
    beta: int = Field(default=2, ge=1, le=10, description="How much more recall counts than precision.")
    lowercase: bool = Field(default=False, description="Whether case is ignored.")


@lru_cache(maxsize=16)
def _chrf_metric(char_order: int, word_order: int, beta: int, *, lowercase: bool) -> Metric:
    from sacrebleu.metrics.chrf import CHRF as Chrf  # noqa: N811 (an acronym in capitals is no constant)

    return Chrf(char_order, word_order, beta, lowercase=lowercase)


def _chrf(subject: Subject, parameters: ChrfParameters) -> Sequence[Value]:
    metric = _chrf_metric(parameters.char_order, parameters.word_order, parameters.beta, lowercase=parameters.lowercase)
    return (_undefined(subject) or _sentence_score(metric, subject),)


def _chrf_signature(parameters: ChrfParameters) -> str:
    case = "lc" if parameters.lowercase else "mixed"
    orders = (f"nc:{parameters.char_order}", f"nw:{parameters.word_order}")
    # sacrebleu's signature is silent about beta: it is 2 everywhere else.
    beta = () if parameters.beta == 2 else (f"beta:{parameters.beta}",)
    return _signature(f"case:{case}", "eff:yes", *orders, *beta, "space:no")


CHRF = Scorer(
    name="chrf",
    version="1",
    description="How many runs of characters the answer shares with the best fitting reference.",
    citation="M. Popovic 2015 and 2017; M. Post 2018 (sacrebleu).",
    scores=(_percentage("chrF, 0 - 100: F-score of runs of up to `char_order` characters."),),
    function=_chrf,
    parameters=ChrfParameters,
    needs_reference=True,
    signature=_chrf_signature,
)


class TerParameters(Parameters):
    """How TER prepares texts."""

    normalized: bool = Field(default=False, description="Whether punctuation is split off and entities are undone.")
    no_punct: bool = Field(default=False, description="Whether punctuation is dropped.")
    asian_support: bool = Field(default=False, description="Whether characters of Asian scripts are words.")
    case_sensitive: bool = Field(default=False, description="Whether case counts.")


@lru_cache(maxsize=16)
def _ter_metric(*, normalized: bool, no_punct: bool, asian_support: bool, case_sensitive: bool) -> Metric:
    from sacrebleu.metrics.ter import TER as Ter  # noqa: N811 (an acronym in capitals is no constant)

    return Ter(normalized=normalized, no_punct=no_punct, asian_support=asian_support, case_sensitive=case_sensitive)


def _units(text: str, parameters: TerParameters) -> int:
    """At least as many as TER finds words in `text`."""
    return len(text) if parameters.normalized or parameters.asian_support else len(text.split())


def _ter(subject: Subject, parameters: TerParameters) -> Sequence[Value]:
    if undefined := _undefined(subject):
        return (undefined,)
    references = sum(_units(reference, parameters) for reference in subject.references)
    if _units(subject.answer.raw, parameters) * references > _TER_WORD_PAIRS_MAX:
        return (TOO_LONG_FOR_TER,)
    return (_sentence_score(_ter_metric(**parameters.model_dump()), subject),)


def _ter_signature(parameters: TerParameters) -> str:
    def answer(*, yes: bool) -> str:
        return "yes" if yes else "no"

    return _signature(
        f"case:{'mixed' if parameters.case_sensitive else 'lc'}",
        "tok:tercom",
        f"norm:{answer(yes=parameters.normalized)}",
        f"punct:{answer(yes=not parameters.no_punct)}",
        f"asian:{answer(yes=parameters.asian_support)}",
    )


TER = Scorer(
    name="ter",
    version="1",
    description="How many edits of words and shifts of phrases turn the answer into the best fitting reference.",
    citation="M. Snover et al. 2006 (tercom); M. Post 2018 (sacrebleu).",
    scores=(
        ScoreDeclaration(
            "",
            Scale.REAL,
            Direction.LOWER_IS_BETTER,
            "Edits per hundred words of the references; may exceed 100.",
            minimum=0.0,
        ),
    ),
    function=_ter,
    parameters=TerParameters,
    needs_reference=True,
    signature=_ter_signature,
)
