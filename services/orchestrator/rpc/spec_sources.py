"""Where the parts of a spec come from: the request itself, and the resources of the project that it names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from llmlab.api.orchestrator.v1 import experiment_pb2 as pb
from services.orchestrator.brand_sets import decode_brands
from services.orchestrator.experiment import ExperimentSpec, PromptTemplate
from services.orchestrator.library import decode_messages, decode_rows
from services.orchestrator.resources import ResourceRecord
from services.orchestrator.rpc.specs import spec_of
from services.orchestrator.store.resources import SqlResources
from services.runtime.errors import InvalidField, NotFound

PROMPTS_MAX: Final = 1_000


def names_resources(message: pb.ExperimentSpec) -> bool:
    """Whether a spec takes copies of resources."""
    return bool(message.brand_set_id or message.prompt_ids or message.dataset_id)


@dataclass(slots=True)
class _Copies:
    """What has been copied into one spec."""

    bytes_left: int
    setting: str

    def take(self, field: str, encoded: bytes) -> bytes:
        """The content, where there is room for it. Raises InvalidField."""
        self.bytes_left -= len(encoded)
        if self.bytes_left < 0:
            message = (
                f"with what it names the spec is larger than a message may be; make it smaller or raise {self.setting}"
            )
            raise InvalidField(field, message)
        return encoded


@dataclass(frozen=True, slots=True)
class SpecSources:
    """The resources that specs may name, and how large a spec may become by them."""

    brand_sets: SqlResources
    prompts: SqlResources
    datasets: SqlResources
    bytes_max: int
    """A whole spec has to fit into one message."""
    bytes_setting: str
    """The environment variable that sets `bytes_max`."""

    async def spec_of(self, project_id: str, message: pb.ExperimentSpec) -> ExperimentSpec:
        """A spec with copies of the resources that it names. Raises InvalidField."""
        spec = await asyncio.to_thread(spec_of, message)
        if not names_resources(message):
            return spec
        copies = _Copies(self.bytes_max - message.ByteSize(), self.bytes_setting)
        if message.prompt_ids:
            spec = replace(spec, prompts=spec.prompts + await self._prompts(project_id, message, copies))
        if message.dataset_id:
            if message.HasField("dataset"):
                raise InvalidField("spec.dataset_id", "give either rows or a dataset of the project, not both")
            _, encoded = await _named(self.datasets, project_id, message.dataset_id, "spec.dataset_id")
            encoded = copies.take("spec.dataset_id", encoded)
            spec = replace(spec, rows=await asyncio.to_thread(decode_rows, encoded))
        if message.brand_set_id:
            if spec.brands:
                raise InvalidField("spec.brand_set_id", "give either brands or a brand set, not both")
            _, encoded = await _named(self.brand_sets, project_id, message.brand_set_id, "spec.brand_set_id")
            encoded = copies.take("spec.brand_set_id", encoded)
            spec = replace(spec, brands=await asyncio.to_thread(decode_brands, encoded))
        return spec

    async def _prompts(
        self, project_id: str, message: pb.ExperimentSpec, copies: _Copies
    ) -> tuple[PromptTemplate, ...]:
        count = len(message.prompts) + len(message.prompt_ids)
        if count > PROMPTS_MAX:
            raise InvalidField("spec.prompt_ids", f"an experiment has at most {PROMPTS_MAX:,} prompts, not {count:,}")
        found = []
        for index, prompt_id in enumerate(message.prompt_ids):
            field = f"spec.prompt_ids[{index}]"
            record, encoded = await _named(self.prompts, project_id, prompt_id, field)
            found.append(PromptTemplate(record.name, decode_messages(copies.take(field, encoded))))
        return tuple(found)


async def _named(
    resources: SqlResources, project_id: str, resource_id: str, field: str
) -> tuple[ResourceRecord, bytes]:
    try:
        return await resources.get(project_id, resource_id)
    except NotFound as error:
        raise InvalidField(field, error.message, error.reason) from error
