"""What each RPC declares about itself in the contracts, read once from the descriptors."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import llmlab.api
from llmlab.api.common.v1 import options_pb2

PUBLIC = "PUBLIC"
AUTHENTICATED = "AUTHENTICATED"

# gRPC's own services: always answered, so that probes and tools work on a busy or a stopping server. Whether
# reflection and channelz are there at all is for the settings.
_INFRASTRUCTURE_PREFIX = "/grpc."


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its path on the wire and its declared options."""

    path: str
    """For example "/llmlab.api.cost.v1.CostService/Hold"."""
    permission: str | None
    """Permission name without prefix; None where the contract declares none: then nobody may call it."""
    idempotent: bool = False
    infrastructure: bool = False
    streams_responses: bool = False

    @property
    def name(self) -> str:
        """Short name for logs and metrics: "CostService/Hold"."""
        service, _, method = self.path[1:].partition("/")
        return f"{service.rpartition('.')[2]}/{method}"


@lru_cache(maxsize=1)
def api_methods() -> dict[str, Method]:
    """Every RPC of the contracts by its path."""
    return {
        method.path: method
        for service in _services()
        for method in (_describe(descriptor) for descriptor in service.methods)
    }


def describe_path(path: str) -> Method:
    """The RPC behind a path; one whose contract is not known has no permission, so it is refused by default."""
    if path.startswith(_INFRASTRUCTURE_PREFIX):
        return Method(path=path, permission=PUBLIC, infrastructure=True)
    service, _, name = path[1:].partition("/")
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return Method(path=path, permission=None)
    return _describe(descriptor)


def _services() -> list[ServiceDescriptor]:
    services: list[ServiceDescriptor] = []
    for module in pkgutil.walk_packages(llmlab.api.__path__, "llmlab.api."):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(module.name).DESCRIPTOR
            services.extend(descriptor.services_by_name.values())
    return services


def _describe(descriptor: MethodDescriptor) -> Method:
    options = descriptor.GetOptions()
    permission = options_pb2.Permission.Name(options.Extensions[options_pb2.permission]).removeprefix("PERMISSION_")
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        permission=None if permission == "UNSPECIFIED" else permission,
        idempotent=options.Extensions[options_pb2.idempotent],
        streams_responses=descriptor.server_streaming,
    )
