"""`python -m services.runtime.health_command`: asks the process on LLMLAB_HEALTH_PORT whether it is ready.

A container's health check runs it, so it loads nothing but gRPC.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.health import READINESS

TIMEOUT_S = 3.0


def main() -> int:
    """Entry point; returns the exit status."""
    port = os.environ.get("LLMLAB_HEALTH_PORT", "")
    if not port:
        sys.stderr.write("LLMLAB_HEALTH_PORT is not set\n")
        return 2
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=READINESS), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            sys.stderr.write(f"no answer: {error.code().name}\n")
            return 1
    ready = bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    sys.stdout.write("ready\n" if ready else "not ready\n")
    return 0 if ready else 1


if __name__ == "__main__":
    raise SystemExit(main())
