"""Channels: load balancing, keepalive, and retries for RPCs that may be repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
from google.protobuf.descriptor import FileDescriptor

from llmlab.api.common.v1 import options_pb2, server_pb2
from llmlab.api.cost.v1 import alert_pb2, budget_pb2, hold_pb2, insight_pb2, price_pb2, repricing_pb2, spend_pb2
from llmlab.api.gateway.v1 import automation_pb2, chat_pb2, gateway_pb2, provider_pb2
from llmlab.api.identity.v1 import identity_pb2
from llmlab.api.metrics.v1 import brands_pb2, judge_pb2, metrics_pb2, scorer_pb2
from llmlab.api.orchestrator.v1 import brand_set_pb2, dataset_pb2, experiment_pb2, prompt_pb2, run_pb2

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
METADATA_BYTES_MAX = 64 * 1024
RECONNECT_MS = 100
RECONNECT_MS_MAX = 2_000
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
RETRY_ATTEMPTS_MAX = 4

# CANCELLED is what gRPC says to calls that come in while a server closes. One that its caller cancels is not retried.
_RETRIED_CODES = ("UNAVAILABLE", "CANCELLED")

_FILES: tuple[FileDescriptor, ...] = tuple(
    file.DESCRIPTOR
    for file in (
        server_pb2,
        *(automation_pb2, chat_pb2, gateway_pb2, provider_pb2),
        *(brand_set_pb2, dataset_pb2, experiment_pb2, prompt_pb2, run_pb2),
        *(brands_pb2, judge_pb2, metrics_pb2, scorer_pb2),
        *(alert_pb2, budget_pb2, hold_pb2, insight_pb2, price_pb2, repricing_pb2, spend_pb2),
        identity_pb2,
    )
)


def idempotent_methods() -> list[tuple[str, str]]:
    """Returns (service, method) of each RPC that declares itself idempotent. Paid calls are never among them."""
    return [
        (service.full_name, method.name)
        for file in _FILES
        for service in file.services_by_name.values()
        for method in service.methods
        if method.GetOptions().Extensions[options_pb2.idempotent]
    ]


def _service_config() -> str:
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": [{"service": service, "method": method} for service, method in idempotent_methods()],
                    "retryPolicy": {
                        "maxAttempts": RETRY_ATTEMPTS_MAX,
                        "initialBackoff": "0.1s",
                        "maxBackoff": "2s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": _RETRIED_CODES,
                    },
                }
            ],
        }
    )


_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", _service_config()),
    # Or else a client finds a service down because another client of this process did a moment ago.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that was restarted has to be found again before the next one goes, as in a rolling restart.
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
    ("grpc.min_reconnect_backoff_ms", RECONNECT_MS_MAX),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
    ("grpc.dns_min_time_between_resolutions_ms", RECONNECT_MS_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A failed completion's details hold its partial text, more than the default of 8 KiB.
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: whom to trust, and who one is where the services demand a certificate (mutual TLS)."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self | None:
        """LLMLAB_TLS_CA, with LLMLAB_TLS_CERTIFICATE and LLMLAB_TLS_KEY; None where LLMLAB_TLS_CA is not set."""
        ca, certificate, key = (environ.get(f"LLMLAB_TLS_{name}", "") for name in ("CA", "CERTIFICATE", "KEY"))
        if not ca:
            return None
        return cls(Path(ca), Path(certificate) if certificate else None, Path(key) if key else None)

    def credentials(self) -> grpc.ChannelCredentials:
        """Of the files as they are now. Raises OSError."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.expanduser().read_bytes(),
            private_key=self.key.expanduser().read_bytes() if self.key else None,
            certificate_chain=self.certificate.expanduser().read_bytes() if self.certificate else None,
        )


def open_channel(target: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """Opens a channel to a service, over TLS where `tls` is given; it connects at the first call.

    Raises:
        OSError: A file of `tls` cannot be read.
    """
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    return grpc.aio.secure_channel(target, tls.credentials(), options=_OPTIONS)
