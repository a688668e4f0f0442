"""ExperimentService: what is to be found out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.orchestrator.v1 import experiment_pb2 as pb
from llmlab.api.orchestrator.v1.experiment_pb2_grpc import ExperimentServiceServicer
from services.orchestrator.admission import Admission
from services.orchestrator.planning import Planner
from services.orchestrator.records import ExperimentRecord
from services.orchestrator.rpc.codec import payload_of, timestamp_of
from services.orchestrator.rpc.plans import plan_message
from services.orchestrator.rpc.spec_sources import SpecSources, names_resources
from services.orchestrator.rpc.specs import limits_of, spec_message
from services.orchestrator.spec_codec import decode_spec
from services.orchestrator.spec_view import SpecView
from services.orchestrator.store import SqlLedger
from services.orchestrator.validation import check_limits
from services.runtime.clock import Clock
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import InvalidField
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.requests import RequestKey

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 50
_CHANGEABLE: Final = ("name", "description", "spec")
_NAME_MAX: Final = 200
_DESCRIPTION_MAX: Final = 4_000


class ExperimentServicer(ExperimentServiceServicer):
    """Serves llmlab.api.orchestrator.v1.ExperimentService."""

    def __init__(
        self, ledger: SqlLedger, sources: SpecSources, admission: Admission, planner: Planner, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._sources = sources
        self._admission = admission
        self._planner = planner
        self._clock = clock

    async def CreateExperiment(
        self, request: pb.CreateExperimentRequest, context: Context
    ) -> pb.CreateExperimentResponse:
        """Creates an experiment."""
        project_id = current_principal().project_id
        key, payload = RequestKey(project_id, "CreateExperiment", request.request_id), payload_of(request)
        first = await self._ledger.recall(key, payload)
        if first is None:
            admitted = await self._admission.admit(
                await self._sources.spec_of(project_id, request.spec), bearer_token()
            )
            now_us = self._clock.now_us()
            record = ExperimentRecord(
                experiment_id=new_id("exp"),
                project_id=project_id,
                name=request.name,
                description=request.description,
                spec_hash=admitted.spec_hash,
                cells=admitted.cells,
                created_us=now_us,
                updated_us=now_us,
            )
            first = await self._ledger.create_experiment(
                record, admitted.encoded, key=key, payload=payload, answer=_encoded
            )
        experiment = pb.Experiment.FromString(first)
        experiment.spec.CopyFrom(request.spec)
        if names_resources(request.spec) or any("/" not in model.model for model in request.spec.models):
            encoded = await self._ledger.get_spec(project_id, experiment.spec_hash)
            experiment.spec.CopyFrom(await asyncio.to_thread(_spec, encoded))
        return pb.CreateExperimentResponse(experiment=experiment)

    async def GetExperiment(self, request: pb.GetExperimentRequest, context: Context) -> pb.GetExperimentResponse:
        """Gives one experiment."""
        record = await self._ledger.get_experiment(current_principal().project_id, request.experiment_id)
        return pb.GetExperimentResponse(experiment=await self._full(record))

    async def ListExperiments(self, request: pb.ListExperimentsRequest, context: Context) -> pb.ListExperimentsResponse:
        """Lists the project's experiments."""
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint("ListExperiments", project_id)
        before = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._ledger.list_experiments(project_id, str(before[0]) if before else "", size + 1)
        page = found[:size]
        return pb.ListExperimentsResponse(
            experiments=[_message(record) for record in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].experiment_id]) if len(found) > size else "",
        )

    async def UpdateExperiment(
        self, request: pb.UpdateExperimentRequest, context: Context
    ) -> pb.UpdateExperimentResponse:
        """Changes the named fields."""
        project_id = current_principal().project_id
        paths = _checked_mask(list(request.update_mask.paths))
        wanted = request.experiment
        if "name" in paths and not 1 <= len(wanted.name) <= _NAME_MAX:
            raise InvalidField("experiment.name", f"a name has 1 to {_NAME_MAX} characters")
        if "description" in paths and len(wanted.description) > _DESCRIPTION_MAX:
            raise InvalidField("experiment.description", f"a description has at most {_DESCRIPTION_MAX:,} characters")
        admitted = None
        if "spec" in paths:
            admitted = await self._admission.admit(await self._sources.spec_of(project_id, wanted.spec), bearer_token())

        def change(record: ExperimentRecord) -> ExperimentRecord:
            record = replace(record, updated_us=self._clock.now_us())
            if "name" in paths:
                record = replace(record, name=wanted.name)
            if "description" in paths:
                record = replace(record, description=wanted.description)
            if admitted is not None:
                record = replace(record, spec_hash=admitted.spec_hash, cells=admitted.cells)
            return record

        first = await self._ledger.update_experiment(
            project_id,
            request.experiment_id,
            change,
            admitted.encoded if admitted else None,
            key=RequestKey(project_id, "UpdateExperiment", request.request_id),
            payload=payload_of(request),
            answer=_encoded,
        )
        experiment = pb.Experiment.FromString(first)
        encoded = await self._ledger.get_spec(project_id, experiment.spec_hash)
        experiment.spec.CopyFrom(await asyncio.to_thread(_spec, encoded))
        return pb.UpdateExperimentResponse(experiment=experiment)

    async def PlanExperiment(self, request: pb.PlanExperimentRequest, context: Context) -> pb.PlanExperimentResponse:
        """Says what a run would come to."""
        project_id, token = current_principal().project_id, bearer_token()
        wanted = limits_of(request.limits)
        check_limits(wanted, "limits")
        if request.HasField("spec"):
            admitted = await self._admission.admit(await self._sources.spec_of(project_id, request.spec), token)
            encoded, spec_hash = admitted.encoded, admitted.spec_hash
        else:
            experiment = await self._ledger.get_experiment(project_id, request.experiment_id)
            spec_hash = experiment.spec_hash
            encoded = await self._ledger.get_spec(project_id, spec_hash)
        view = await asyncio.to_thread(SpecView, encoded)
        limits = view.spec.limits.overridden_by(wanted).in_force()
        plan = plan_message(await self._planner.plan(project_id, view, spec_hash, limits, token))
        identical = await self._ledger.find_identical_run(project_id, spec_hash, limits)
        if identical is not None:
            plan.identical_run_id = identical.run_id
        return plan

    async def DeleteExperiment(
        self, request: pb.DeleteExperimentRequest, context: Context
    ) -> pb.DeleteExperimentResponse:
        """Deletes an experiment with its ended runs."""
        project_id = current_principal().project_id
        key = RequestKey(project_id, "DeleteExperiment", request.request_id)
        await self._ledger.delete_experiment(project_id, request.experiment_id, key, payload_of(request))
        return pb.DeleteExperimentResponse()

    async def _full(self, record: ExperimentRecord) -> pb.Experiment:
        message = _message(record)
        encoded = await self._ledger.get_spec(record.project_id, record.spec_hash)
        message.spec.CopyFrom(await asyncio.to_thread(_spec, encoded))
        return message


def _checked_mask(paths: list[str]) -> list[str]:
    if not paths:
        raise InvalidField("update_mask", f"name what to change: {', '.join(_CHANGEABLE)}")
    for path in paths:
        if path not in _CHANGEABLE:
            raise InvalidField("update_mask", f"{path!r} cannot be changed; {', '.join(_CHANGEABLE)} can")
    return paths


def _spec(encoded: bytes) -> pb.ExperimentSpec:
    return spec_message(decode_spec(encoded))


def _message(record: ExperimentRecord) -> pb.Experiment:
    """An experiment without its spec."""
    return pb.Experiment(
        experiment_id=record.experiment_id,
        name=record.name,
        description=record.description,
        cells=record.cells,
        spec_hash=record.spec_hash,
        create_time=timestamp_of(record.created_us),
        update_time=timestamp_of(record.updated_us),
    )


def _encoded(record: ExperimentRecord) -> bytes:
    return _message(record).SerializeToString()
