"""Calls to models that judge. They are paid: none is repeated by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmlab.api.metrics.v1 import judge_pb2
from llmlab.api.metrics.v1.judge_pb2_grpc import JudgeServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.judge_pb2_grpc import JudgeServiceAsyncStub

JUDGEMENT_TIMEOUT_S: Final = 600.0
"""Seconds that a request may take: it makes up to some thousand calls, a bounded number at a time."""


class JudgeCalls(Connection):
    """Judgements by models."""

    @property
    def _judges(self) -> JudgeServiceAsyncStub:
        return JudgeServiceStub(self._channel("metrics"))

    async def judge_by_rubric(self, question: judge_pb2.JudgeByRubricRequest) -> judge_pb2.JudgeByRubricResponse:
        """Scores answers by a rubric, each several times: pass, fail or undecided."""
        return await self._unary("metrics", self._judges.JudgeByRubric, question, JUDGEMENT_TIMEOUT_S)

    async def judge_pairs(self, question: judge_pb2.JudgePairsRequest) -> judge_pb2.JudgePairsResponse:
        """Judges pairs of answers in both orders."""
        return await self._unary("metrics", self._judges.JudgePairs, question, JUDGEMENT_TIMEOUT_S)
