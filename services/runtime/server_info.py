"""ServerService: what a running server says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import llmlab
from llmlab.api.common.v1 import server_pb2, server_pb2_grpc
from services.runtime.settings import ServiceSettings


class ServerInfoServicer(server_pb2_grpc.ServerServiceServicer):
    """Answers GetServerInfo from the moment of its construction."""

    def __init__(self, settings: ServiceSettings, features: Sequence[str]) -> None:
        self._service = settings.service
        self._features = sorted({*features, *_features_of(settings)})
        self._started_s = monotonic()
        self._answer = server_pb2.GetServerInfoResponse(service=settings.service, version=llmlab.__version__)
        self._answer.started_at.GetCurrentTime()
        self._answer.features.extend(self._features)

    async def GetServerInfo(  # noqa: N802 (the contract names it)
        self, _request: server_pb2.GetServerInfoRequest, _context: Any
    ) -> server_pb2.GetServerInfoResponse:
        """Version, uptime and features."""
        answer = server_pb2.GetServerInfoResponse()
        answer.CopyFrom(self._answer)
        answer.uptime_s = int(monotonic() - self._started_s)
        return answer


def _features_of(settings: ServiceSettings) -> list[str]:
    flags = {
        "auth": settings.auth_required,
        "tls": settings.tls_certificate is not None,
        "redis": bool(settings.redis_url),
        "reflection": settings.reflection,
        "channelz": settings.channelz,
    }
    return [name for name, present in flags.items() if present]
