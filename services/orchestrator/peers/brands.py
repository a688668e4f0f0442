"""Brands over the metrics service's gRPC: the messages of `GrpcMetrics`' questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llmlab.api.metrics.v1 import brands_pb2 as pb
from services.orchestrator.brands import BrandColumns, Names
from services.orchestrator.experiment import BrandTarget
from services.orchestrator.ports import Sample
from services.orchestrator.rpc.specs import brand_messages

_NOT_JUDGED: Final = 2.0


def detect_request(brands: Sequence[BrandTarget], samples: Sequence[Sample]) -> pb.DetectBrandsRequest:
    """Looks through answers, with the sentences around mentions and their sentiment.

    Every sample has an id, so that no answer without brands is stored as nothing, which means "not looked through".
    """
    return pb.DetectBrandsRequest(
        brands=brand_messages(brands),
        samples=[pb.BrandSample(sample_id=str(sample.cell), answer=sample.answer) for sample in samples],
        contexts=True,
        sentiment=True,
    )


def summarize_request(names: Names, run: BrandColumns, baseline: BrandColumns | None) -> pb.SummarizeBrandsRequest:
    """Sums a run up, with what has changed since another one."""
    return pb.SummarizeBrandsRequest(
        brands=names.brands,
        prompts=names.prompts,
        models=names.models,
        run=_observations(run),
        baseline=None if baseline is None else _observations(baseline),
    )


def _observations(columns: BrandColumns) -> pb.BrandObservations:
    found = [each for _, each in columns.found]
    return pb.BrandObservations(
        prompts=columns.prompts,
        models=columns.models,
        clusters=columns.clusters,
        missing=columns.missing,
        found_in=[index for index, _ in columns.found],
        found_brand=[each.brand for each in found],
        found_mentions=[each.mentions for each in found],
        found_position=[each.position for each in found],
        found_citations=[each.citations for each in found],
        found_sentiment=[_NOT_JUDGED if each.sentiment is None else each.sentiment for each in found],
    )
