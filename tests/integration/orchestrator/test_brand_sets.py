"""Brand sets over the wire, and experiments that take copies of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from llmlab.api.metrics.v1.brands_pb2 import Brand
from llmlab.api.orchestrator.v1 import brand_set_pb2 as pb
from llmlab.api.orchestrator.v1 import experiment_pb2 as epb
from services.orchestrator.rpc.specs import spec_message
from tests.support.orchestrator import study
from tests.support.orchestrator_rpc import refusal, serving

BRANDS = [Brand(name="beta", aliases=["b2", "b1", "b2"]), Brand(name="alpha", domains=["alpha.com"])]
KEPT = [Brand(name="alpha", domains=["alpha.com"]), Brand(name="beta", aliases=["b1", "b2"])]


@dataclass
class Client:
    """Stubs of a running orchestrator."""

    sets: Any
    experiments: Any

    async def create(self, name: str = "ours", brands: Sequence[Brand] = BRANDS) -> pb.CreateBrandSetResponse:
        request = pb.CreateBrandSetRequest(name=name, brands=brands)
        response: pb.CreateBrandSetResponse = await self.sets.CreateBrandSet(request)
        return response

    async def update(self, brand_set_id: str, paths: Sequence[str], **values: Any) -> pb.BrandSet:
        request = pb.UpdateBrandSetRequest(
            brand_set_id=brand_set_id, update_mask=FieldMask(paths=paths), request_id="", **values
        )
        changed: pb.BrandSet = (await self.sets.UpdateBrandSet(request)).brand_set
        return changed

    async def experiment(self, **fields: Any) -> epb.Experiment:
        """An experiment with these fields of its spec."""
        spec = spec_message(study())
        spec.MergeFrom(epb.ExperimentSpec(**fields))
        request = epb.CreateExperimentRequest(name="a study", spec=spec)
        experiment: epb.Experiment = (await self.experiments.CreateExperiment(request)).experiment
        return experiment


@pytest.fixture
async def client(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Client]:
    async with serving(tmp_path, database_url=sqlite_url, workers=0, max_brand_sets_per_project=3) as orchestrator:
        yield Client(orchestrator.brand_sets, orchestrator.experiments)


async def test_brand_sets_are_created_once_read_listed_changed_and_deleted(client: Client) -> None:
    made = await client.create()
    first = made.brand_set
    assert (made.created, first.name, first.brand_count, list(first.brands)) == (True, "ours", 2, KEPT)
    again = await client.create("theirs", KEPT)
    assert (again.created, again.brand_set) == (False, first)
    read = (await client.sets.GetBrandSet(pb.GetBrandSetRequest(brand_set_id=first.brand_set_id))).brand_set
    assert read == first

    others = [(await client.create(name, [Brand(name=name)])).brand_set.brand_set_id for name in ("one", "two")]
    page = await client.sets.ListBrandSets(pb.ListBrandSetsRequest(page_size=2))
    assert [each.brand_set_id for each in page.brand_sets] == others[::-1]
    rest = await client.sets.ListBrandSets(pb.ListBrandSetsRequest(page_size=2, page_token=page.next_page_token))
    assert ([each.brand_set_id for each in rest.brand_sets], rest.next_page_token) == ([first.brand_set_id], "")
    assert not rest.brand_sets[0].brands
    named = await client.sets.ListBrandSets(pb.ListBrandSetsRequest(name="one"))
    assert [each.brand_set_id for each in named.brand_sets] == others[:1]

    renamed = await client.update(first.brand_set_id, ["name"], name="mine", brands=[Brand(name="not taken")])
    assert (renamed.name, renamed.content_hash) == ("mine", first.content_hash)
    changed = await client.update(first.brand_set_id, ["brands"], brands=[Brand(name="gamma")])
    assert (changed.name, changed.brand_count, changed.content_hash != first.content_hash) == ("mine", 1, True)

    gone = pb.DeleteBrandSetRequest(brand_set_id=first.brand_set_id)
    await client.sets.DeleteBrandSet(gone)
    assert (await refusal(client.sets.DeleteBrandSet(gone))).reason == "NOT_FOUND"


async def test_what_a_brand_set_cannot_be_is_told(client: Client) -> None:
    first = (await client.create()).brand_set.brand_set_id
    other = (await client.create("other", [Brand(name="other")])).brand_set.brand_set_id
    for call, reason, field in (
        (client.create("x", []), "INVALID_FIELD", "brands"),
        (client.create("", BRANDS), "INVALID_FIELD", "name"),
        (client.create("x", [Brand(name="good"), Brand(name="!?")]), "INVALID_FIELD", "brands[1].name"),
        (client.create("ours", [Brand(name="x")]), "ALREADY_EXISTS", ""),
        (client.update(other, [], name="x"), "INVALID_FIELD", "update_mask"),
        (client.update(other, ["brand_count"]), "INVALID_FIELD", "update_mask"),
        (client.update(other, ["name"]), "INVALID_FIELD", "name"),
        (client.update(other, ["brands"]), "INVALID_FIELD", "brands"),
        (client.update(other, ["brands"], brands=[Brand(name="!?")]), "INVALID_FIELD", "brands[0].name"),
        (client.update(other, ["brands"], brands=BRANDS), "ALREADY_EXISTS", ""),
        (client.update(other, ["name"], name="ours"), "ALREADY_EXISTS", ""),
        (client.update("bset_x", ["name"], name="x"), "NOT_FOUND", ""),
        (client.sets.ListBrandSets(pb.ListBrandSetsRequest(page_token="x")), "INVALID_PAGE_TOKEN", "page_token"),
    ):
        error = await refusal(call)
        assert (error.reason, error.field) == (reason, field), error.message
    await client.create("third", [Brand(name="third")])
    error = await refusal(client.create("fourth", [Brand(name="fourth")]))
    assert (error.reason, "LLMLAB_ORCHESTRATOR_MAX_BRAND_SETS_PER_PROJECT" in error.message) == ("LIMIT_REACHED", True)
    assert (await client.create("fifth", KEPT)).brand_set.brand_set_id == first


async def test_an_experiment_takes_a_copy_of_the_brand_set_that_it_names(client: Client) -> None:
    brand_set_id = (await client.create()).brand_set.brand_set_id
    named = await client.experiment(brand_set_id=brand_set_id)
    assert (list(named.spec.brands), named.spec.brand_set_id) == (KEPT, "")
    assert named.spec_hash == (await client.experiment(brands=KEPT)).spec_hash

    await client.update(brand_set_id, ["brands"], brands=[Brand(name="gamma")])
    read = epb.GetExperimentRequest(experiment_id=named.experiment_id)
    assert (await client.experiments.GetExperiment(read)).experiment == named
    spec = spec_message(study())
    spec.brand_set_id = brand_set_id
    change = epb.UpdateExperimentRequest(
        experiment_id=named.experiment_id,
        experiment=epb.Experiment(spec=spec),
        update_mask=FieldMask(paths=["spec"]),
    )
    changed = (await client.experiments.UpdateExperiment(change)).experiment
    assert [brand.name for brand in changed.spec.brands] == ["gamma"]

    await client.sets.DeleteBrandSet(pb.DeleteBrandSetRequest(brand_set_id=brand_set_id))
    assert (await client.experiments.GetExperiment(read)).experiment == changed
    for fields, reason in (
        ({"brand_set_id": brand_set_id}, "NOT_FOUND"),
        ({"brand_set_id": brand_set_id, "brands": BRANDS}, "INVALID_FIELD"),
    ):
        error = await refusal(client.experiment(**fields))
        assert (error.code, error.reason, error.field) == ("INVALID_ARGUMENT", reason, "spec.brand_set_id")
