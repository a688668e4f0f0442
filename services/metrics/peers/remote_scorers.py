"""Remote scorers over gRPC: a channel to each server that the operator has named, and to no other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import grpc

from llmlab.api.metrics.v1 import scorer_pb2 as pb
from llmlab.api.metrics.v1.scorer_pb2_grpc import ScorerServiceStub
from services.metrics.remote import RemoteFailure, RemoteScore
from services.metrics.scoring import SampleTexts
from services.metrics.settings import MetricsSettings
from services.runtime.channel import open_channel
from services.runtime.errors import DomainError

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.scorer_pb2_grpc import ScorerServiceAsyncStub

_ABOUT_THE_NETWORK: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Their details hold addresses, which are the operator's and not the caller's to know."""

_log = logging.getLogger(__name__)


class GrpcRemoteServers:
    """Implements remote.RemoteServers. No credential goes along: the servers are not llmlab's."""

    def __init__(self, stubs: dict[str, ScorerServiceAsyncStub], timeout_s: float) -> None:
        self._stubs = stubs
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: MetricsSettings) -> AsyncIterator[GrpcRemoteServers]:
        """The servers of the settings; connections are closed at the end."""
        async with AsyncExitStack() as stack:
            stubs: dict[str, ScorerServiceAsyncStub] = {}
            for name, target in settings.remote_targets.items():
                stubs[name] = ScorerServiceStub(await stack.enter_async_context(open_channel(target, settings)))
            yield cls(stubs, settings.remote_timeout_ms / 1_000)

    async def ask(self, name: str, samples: Sequence[SampleTexts]) -> list[RemoteScore]:
        """See RemoteServers.ask."""
        request = pb.ScoreAnswersRequest(scorer=name)
        for place, (answer, prompt, references, finish_reason) in enumerate(samples):
            request.answers.add(
                sample_id=str(place),
                prompt=prompt,
                answer=answer,
                references=references,
                finish_reason=finish_reason,
            )
        try:
            response = await self._stubs[name].ScoreAnswers(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            _log.warning("remote scorer %s: %s: %s", name, error.code().name, error.details())
            details = "" if error.code() in _ABOUT_THE_NETWORK else f": {error.details()}"
            raise RemoteFailure(f"{error.code().name}{details}") from error
        except DomainError as error:
            raise RemoteFailure(error.message) from error
        return [
            RemoteScore(score.sample_id, score.value if score.HasField("value") else None, score.absent_reason)
            for score in response.scores
        ]
