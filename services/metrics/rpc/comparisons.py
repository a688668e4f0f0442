"""Comparisons: protobuf to domain and back."""

from __future__ import annotations

from typing import Final

from llmlab.api.metrics.v1 import statistics_pb2 as pb
from services.metrics.comparisons import Against, Comparison, Question, Verdict
from services.metrics.pairing import Group
from services.metrics.rpc.statistics import KINDS, estimate_message, packed

_AGAINST: Final = {
    pb.COMPARE_AGAINST_UNSPECIFIED: Against.EVERY_OTHER,
    pb.COMPARE_AGAINST_EVERY_OTHER: Against.EVERY_OTHER,
    pb.COMPARE_AGAINST_BASELINE: Against.BASELINE,
    pb.COMPARE_AGAINST_BEST: Against.BEST,
}
_VERDICTS: Final = {
    Verdict.FIRST_HIGHER: pb.VERDICT_FIRST_HIGHER,
    Verdict.SECOND_HIGHER: pb.VERDICT_SECOND_HIGHER,
    Verdict.WITHIN_NOISE: pb.VERDICT_WITHIN_NOISE,
    Verdict.UNKNOWN: pb.VERDICT_UNKNOWN,
}


async def read_question(request: pb.CompareRequest) -> Question:
    """What is to be compared, its numbers packed for a worker."""
    return Question(
        kind=KINDS[request.kind],
        groups=tuple([await _group(group) for group in request.groups]),
        against=_AGAINST[request.against],
        baseline=request.baseline,
        lower_is_better=request.lower_is_better,
        minimum=request.minimum if request.HasField("minimum") else None,
        maximum=request.maximum if request.HasField("maximum") else None,
    )


async def _group(group: pb.ComparedGroup) -> Group:
    return Group(
        group.key,
        await packed("d", group.values),
        await packed("q", group.units),
        await packed("q", group.missing_units),
    )


def comparison_message(comparison: Comparison) -> pb.Comparison:
    """A comparison on the wire."""
    return pb.Comparison(
        first=comparison.first,
        second=comparison.second,
        difference=estimate_message(comparison.difference),
        p_value=comparison.p_value,
        adjusted_p_value=comparison.adjusted_p_value,
        verdict=_VERDICTS[comparison.verdict],
        detectable_difference=comparison.detectable_difference,
        wins=comparison.wins,
        ties=comparison.ties,
        losses=comparison.losses,
    )
