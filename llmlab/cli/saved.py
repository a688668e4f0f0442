"""What a project keeps for several studies (brand sets, prompts, datasets): found by id or by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.cli.app import EXIT_USAGE, CommandError
from llmlab.cli.listing import taken
from llmlab.client import Client


async def find_saved(client: Client, spec: experiment_pb2.ExperimentSpec) -> None:
    """Puts ids in the place of names, where a study names what the project keeps."""
    spec.prompt_ids[:] = [await prompt_id_of(client, each) for each in spec.prompt_ids]
    if spec.dataset_id:
        spec.dataset_id = await dataset_id_of(client, spec.dataset_id)
    if spec.brand_set_id:
        spec.brand_set_id = await brand_set_id_of(client, spec.brand_set_id)


async def brand_set_id_of(client: Client, id_or_name: str) -> str:
    """The id of a brand set."""
    return await _id_of(client.list_brand_sets, id_or_name, "bset_", "brand set")


async def prompt_id_of(client: Client, id_or_name: str) -> str:
    """The id of a prompt."""
    return await _id_of(client.list_prompts, id_or_name, "prm_", "prompt")


async def dataset_id_of(client: Client, id_or_name: str) -> str:
    """The id of a dataset."""
    return await _id_of(client.list_datasets, id_or_name, "dset_", "dataset")


async def _id_of(listed: Callable[..., AsyncIterator[Any]], id_or_name: str, prefix: str, noun: str) -> str:
    if id_or_name.startswith(prefix):
        return id_or_name
    found = await taken(listed(name=id_or_name), 1)
    if not found:
        command = noun.replace(" ", "") + "s"
        raise CommandError(f"There is no {noun} {id_or_name!r}; `llmlab {command} list` lists them.", EXIT_USAGE)
    found_id: str = getattr(found[0], f"{noun.replace(' ', '_')}_id")
    return found_id
