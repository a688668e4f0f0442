"""Prompts and datasets over the wire, and experiments that take copies of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.orchestrator.v1 import dataset_pb2 as dpb
from llmlab.api.orchestrator.v1 import experiment_pb2 as epb
from llmlab.api.orchestrator.v1 import prompt_pb2 as ppb
from services.orchestrator.rpc.specs import spec_message
from tests.support.orchestrator import study
from tests.support.orchestrator_rpc import Client, refusal, serving

MESSAGE_BYTES_MAX = 16_384


def messages(*texts: str) -> list[epb.MessageTemplate]:
    """Messages of the user."""
    return [epb.MessageTemplate(role=content_pb2.ROLE_USER, text=text) for text in texts]


def rows(*texts: str) -> list[epb.Row]:
    """A row for each, with the column `n`."""
    return [epb.Row(columns={"n": value_pb2.Value(string_value=text)}) for text in texts]


def spec(**fields: Any) -> epb.ExperimentSpec:
    """A study without prompts and rows, but with these fields."""
    message = spec_message(study())
    message.ClearField("prompts")
    message.ClearField("dataset")
    message.MergeFrom(epb.ExperimentSpec(**fields))
    return message


@pytest.fixture
async def client(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Client]:
    limits = {"max_prompts_per_project": 3, "max_datasets_per_project": 2, "max_message_bytes": MESSAGE_BYTES_MAX}
    async with serving(tmp_path, database_url=sqlite_url, workers=0, **limits) as orchestrator:
        yield orchestrator


async def prompt(client: Client, name: str, *texts: str) -> ppb.CreatePromptResponse:
    """Create a prompt."""
    request = ppb.CreatePromptRequest(name=name, messages=messages(*texts))
    response: ppb.CreatePromptResponse = await client.prompts.CreatePrompt(request)
    return response


async def dataset(client: Client, name: str, *texts: str) -> dpb.CreateDatasetResponse:
    """Create a dataset."""
    request = dpb.CreateDatasetRequest(name=name, rows=rows(*texts))
    response: dpb.CreateDatasetResponse = await client.datasets.CreateDataset(request)
    return response


async def test_prompts_are_created_once_read_listed_and_deleted(client: Client) -> None:
    made = await prompt(client, "ask", "Say {{n}}.")
    first = made.prompt
    assert (made.created, first.name, first.message_count) == (True, "ask", 1)
    again = await prompt(client, "another", "Say {{n}}.")
    assert (again.created, again.prompt) == (False, first)
    read = (await client.prompts.GetPrompt(ppb.GetPromptRequest(prompt_id=first.prompt_id))).prompt
    assert (list(read.messages), read.content_hash) == (messages("Say {{n}}."), first.content_hash)
    second = (await prompt(client, "b", "b")).prompt
    page = await client.prompts.ListPrompts(ppb.ListPromptsRequest(page_size=1))
    assert list(page.prompts) == [second]
    rest = await client.prompts.ListPrompts(ppb.ListPromptsRequest(page_size=1, page_token=page.next_page_token))
    assert (list(rest.prompts), rest.next_page_token) == ([first], "")
    assert list((await client.prompts.ListPrompts(ppb.ListPromptsRequest(name="b"))).prompts) == [second]
    gone = ppb.DeletePromptRequest(prompt_id=first.prompt_id)
    await client.prompts.DeletePrompt(gone)
    assert (await refusal(client.prompts.DeletePrompt(gone))).reason == "NOT_FOUND"


async def test_datasets_are_created_once_read_listed_and_deleted(client: Client) -> None:
    made = await dataset(client, "numbers", "1", "2")
    first = made.dataset
    assert (made.created, first.name, first.row_count) == (True, "numbers", 2)
    assert not (await dataset(client, "another", "1", "2")).created
    assert (await dataset(client, "turned", "2", "1")).created
    read = (await client.datasets.GetDataset(dpb.GetDatasetRequest(dataset_id=first.dataset_id))).dataset
    assert list(read.rows) == rows("1", "2")
    listed = (await client.datasets.ListDatasets(dpb.ListDatasetsRequest())).datasets
    assert [each.name for each in listed] == ["turned", "numbers"]
    gone = dpb.DeleteDatasetRequest(dataset_id=first.dataset_id)
    await client.datasets.DeleteDataset(gone)
    assert (await refusal(client.datasets.DeleteDataset(gone))).reason == "NOT_FOUND"


async def test_what_they_cannot_be_is_told(client: Client) -> None:
    for name in ("one", "two", "three"):
        await prompt(client, name, name)
    for name in ("one", "two"):
        await dataset(client, name, name)
    for call, reason, named in (
        (prompt(client, "", "x"), "INVALID_FIELD", "name"),
        (prompt(client, "x"), "INVALID_FIELD", "messages"),
        (prompt(client, "x", "fine", "{{open"), "INVALID_FIELD", "messages[1].text"),
        (prompt(client, "one", "x"), "ALREADY_EXISTS", ""),
        (prompt(client, "four", "four"), "LIMIT_REACHED", "LLMLAB_ORCHESTRATOR_MAX_PROMPTS_PER_PROJECT"),
        (dataset(client, "", "x"), "INVALID_FIELD", "name"),
        (dataset(client, "x"), "INVALID_FIELD", "rows"),
        (dataset(client, "one", "x"), "ALREADY_EXISTS", ""),
        (dataset(client, "three", "three"), "LIMIT_REACHED", "LLMLAB_ORCHESTRATOR_MAX_DATASETS_PER_PROJECT"),
    ):
        error = await refusal(call)
        assert (error.reason, named in f"{error.field} {error.message}") == (reason, True), error.message


async def test_an_experiment_takes_copies_of_what_it_names(client: Client) -> None:
    prompt_id = (await prompt(client, "kept", "Say {{n}}.")).prompt.prompt_id
    dataset_id = (await dataset(client, "numbers", "1", "2")).dataset.dataset_id
    own = epb.PromptTemplate(name="own", messages=messages("Hello."))
    kept = epb.PromptTemplate(name="kept", messages=messages("Say {{n}}."))

    named = await client.create(spec(prompts=[own], prompt_ids=[prompt_id], dataset_id=dataset_id))
    written = await client.create(spec(prompts=[own, kept], dataset=epb.Dataset(rows=rows("1", "2"))))
    assert (list(named.spec.prompts), list(named.spec.dataset.rows)) == ([own, kept], rows("1", "2"))
    assert (list(named.spec.prompt_ids), named.spec.dataset_id) == ([], "")
    assert (named.spec_hash, named.cells) == (written.spec_hash, written.cells)

    await client.prompts.DeletePrompt(ppb.DeletePromptRequest(prompt_id=prompt_id))
    read = epb.GetExperimentRequest(experiment_id=named.experiment_id)
    assert (await client.experiments.GetExperiment(read)).experiment == named
    change = epb.UpdateExperimentRequest(
        experiment_id=named.experiment_id,
        experiment=epb.Experiment(spec=spec(prompts=[kept], dataset_id=dataset_id)),
        update_mask=FieldMask(paths=["spec"]),
    )
    changed = (await client.experiments.UpdateExperiment(change)).experiment
    assert list(changed.spec.dataset.rows) == rows("1", "2")


async def test_what_an_experiment_cannot_name_is_told(client: Client) -> None:
    needs = (await prompt(client, "needs", "Say {{other}}.")).prompt.prompt_id
    large = (await prompt(client, "large", "x" * 9_000)).prompt.prompt_id
    second = (await prompt(client, "second", "y" * 9_000)).prompt.prompt_id
    dataset_id = (await dataset(client, "numbers", "1")).dataset.dataset_id
    own = epb.PromptTemplate(name="own", messages=messages("x"))
    for fields, reason, field in (
        ({"prompt_ids": ["prm_x"]}, "NOT_FOUND", "spec.prompt_ids[0]"),
        ({"prompt_ids": [needs], "dataset_id": "dset_x"}, "NOT_FOUND", "spec.dataset_id"),
        (
            {"prompt_ids": [needs], "dataset_id": dataset_id, "dataset": epb.Dataset(rows=rows("1"))},
            "INVALID_FIELD",
            "spec.dataset_id",
        ),
        ({"prompt_ids": [needs, needs], "dataset_id": dataset_id}, "INVALID_FIELD", "spec.prompts[1].name"),
        ({"prompt_ids": [large, second]}, "INVALID_FIELD", "spec.prompt_ids[1]"),
        ({"prompts": [own], "prompt_ids": ["x"] * 1_000}, "INVALID_FIELD", "spec.prompt_ids"),
    ):
        error = await refusal(client.create(spec(**fields)))
        assert (error.reason, error.field) == (reason, field), error.message
    error = await refusal(client.create(spec(prompt_ids=[needs], dataset_id=dataset_id)))
    assert "other" in error.message
