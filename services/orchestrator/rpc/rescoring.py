"""RescoreRun: the answers of an ended run scored by other scorers, batch by batch; whoever stops it can go on later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from llmlab.api.orchestrator.v1 import score_set_pb2 as pb
from services.orchestrator.admission import Admission
from services.orchestrator.experiment import ExperimentSpec
from services.orchestrator.plan import RunPlan
from services.orchestrator.ports import Metrics, Sample, ScoringRun
from services.orchestrator.records import RunRecord
from services.orchestrator.rpc.codec import answer_text, timestamp_of
from services.orchestrator.rpc.result_reading import FULL_PAGE, ResultReader
from services.orchestrator.rpc.specs import scorer_target_message, scorers_of
from services.orchestrator.scores import Scored
from services.orchestrator.spec_codec import decode_spec, encode_spec
from services.orchestrator.states import ENDED, CellStatus
from services.orchestrator.store import Bodies, ResultQuery, SqlLedger
from services.orchestrator.store.score_sets import ScoreSetRecord
from services.runtime.clock import Clock
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import DomainError, InvalidField, WrongState

_BATCH: Final = 64
"""Answers of one request to the metrics service."""
_AWAY: Final = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "CANCELLED"})
"""Codes of errors that say nothing about the answers: scoring goes on later."""


class Rescorer:
    """Scores ended runs anew."""

    def __init__(
        self, ledger: SqlLedger, reader: ResultReader, metrics: Metrics, admission: Admission, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._metrics = metrics
        self._admission = admission
        self._clock = clock

    async def rescore(self, request: pb.RescoreRunRequest) -> AsyncGenerator[pb.RescoreRunResponse, None]:
        """How far it has come, after each page of answers.

        Raises NotFound, InvalidField, WrongState (the run goes on), AlreadyExists, and what the metrics service raises.
        """
        run = await self._ledger.get_run(current_principal().project_id, request.run_id)
        if run.status not in ENDED:
            raise WrongState("WRONG_STATE", f"run {run.run_id} goes on; wait until it has ended", subject=run.run_id)
        spec = await self._spec(run, request)
        opened = await self._ledger.open_score_set(
            ScoreSetRecord(run.run_id, request.score_set, _encoded(spec), self._clock.now_us())
        )
        response = pb.RescoreRunResponse(score_set=score_set_message(opened), answers=run.statistics.done)
        plan = RunPlan(run, encode_spec(spec))
        query = ResultQuery(
            run.run_id, limit=FULL_PAGE, statuses=[CellStatus.DONE], bodies=Bodies.ALL, score_set=request.score_set
        )
        yield response
        async for page in self._reader.pages(query):
            fresh = [
                plan.sample(stored.record.cell, answer_text(stored.bodies.answer), stored.record.finish_reason)
                for stored in page
                if not stored.bodies.scores
            ]
            for first in range(0, len(fresh), _BATCH):
                batch = fresh[first : first + _BATCH]
                scores = await self._scored(plan, batch)
                cells = [sample.cell for sample in batch]
                await self._ledger.add_scores(run.run_id, request.score_set, list(zip(cells, scores, strict=True)))
            response.answers_scored += len(page)
            yield response

    async def _spec(self, run: RunRecord, request: pb.RescoreRunRequest) -> ExperimentSpec:
        """The run's spec with the other scorers, checked."""
        view = await self._reader.view(run)
        try:
            spec = await self._admission.admit_scorers(
                replace(view.spec, scorers=scorers_of(request.scorers), brands=()), bearer_token()
            )
        except InvalidField as error:
            raise InvalidField(error.field.removeprefix("spec."), error.message, reason=error.reason) from error
        for index, target in enumerate(spec.scorers):
            if target.needs_model:
                message = f"{target.scorer} calls a model; answers are scored anew without paying for calls"
                raise InvalidField(f"scorers[{index}].scorer.name", message)
        return spec

    async def _scored(self, plan: RunPlan, samples: Sequence[Sample]) -> list[Scored]:
        """Scores; a sample that alone makes its request fail gets the error instead."""
        try:
            return await self._metrics.score_batch(
                ScoringRun(plan.run_id, plan.credential), plan.scorer_groups, samples
            )
        except DomainError as error:
            if error.code in _AWAY:
                raise
            if len(samples) == 1:
                return [self._metrics.refused(error)]
        middle = len(samples) // 2
        return [*await self._scored(plan, samples[:middle]), *await self._scored(plan, samples[middle:])]


def _encoded(spec: ExperimentSpec) -> bytes:
    """The scorers alone, in the form of a spec."""
    return encode_spec(ExperimentSpec(prompts=(), models=(), scorers=spec.scorers))


def score_set_message(record: ScoreSetRecord) -> pb.ScoreSet:
    """A score set on the wire."""
    return pb.ScoreSet(
        run_id=record.run_id,
        score_set=record.score_set,
        scorers=map(scorer_target_message, decode_spec(record.encoded).scorers),
        create_time=timestamp_of(record.created_us),
    )
