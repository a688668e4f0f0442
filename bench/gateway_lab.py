"""A gateway beside a cost service in this process, on SQLite, for benchmarks that break what is around it."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmlab.api.common.v1 import content_pb2
from llmlab.api.cost.v1 import hold_pb2_grpc
from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.cost import wiring as cost_wiring
from services.cost.settings import CostSettings
from services.gateway import wiring as gateway_wiring
from services.gateway.settings import GatewaySettings
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import Metadata, call_metadata

if TYPE_CHECKING:
    from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceAsyncStub
    from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

_KEY = "5e" * 32


@dataclass(frozen=True)
class Lab:
    """Stubs of both services, and a credential for them."""

    gateway: GatewayServiceAsyncStub
    holds: HoldServiceAsyncStub
    metadata: Metadata


def call(model: str, call_id: str, **more: Any) -> gateway_pb2.Call:
    """A call with one question."""
    part = content_pb2.ContentPart(text="Why is the sky blue?")
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[part])
    return gateway_pb2.Call(call_id=call_id, model=model, messages=[message], **more)


@asynccontextmanager
async def gateway_lab(catalogue: str = "", **settings: Any) -> AsyncIterator[Lab]:
    """Both services, with this catalogue file and these settings of the gateway."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = home / "catalogue.yaml"
        file.write_text(catalogue)
        cost_settings = CostSettings(port=0, home=home / "home", auth_service_key=_KEY)
        async with cost_wiring.build(cost_settings) as cost:
            own = GatewaySettings(
                port=0,
                home=home / "home",
                auth_service_key=_KEY,
                cost_target=cost.address,
                catalogue_file=file,
                **settings,
            )
            async with (
                gateway_wiring.build(own, environ={}) as gateway,
                grpc.aio.insecure_channel(gateway.address) as channel,
                grpc.aio.insecure_channel(cost.address) as costs,
            ):
                # As services do when they run: modules need not be looked at in every collection.
                gc.freeze()
                minter = ServiceTokenMinter("bench", Ed25519PrivateKey.from_private_bytes(bytes.fromhex(_KEY)))
                token = minter.token("prj_1", user_id="usr_1", key_id="key_1", permissions=("CALL", "READ", "SERVICE"))
                yield Lab(
                    gateway_pb2_grpc.GatewayServiceStub(channel),
                    hold_pb2_grpc.HoldServiceStub(costs),
                    call_metadata(token),
                )
