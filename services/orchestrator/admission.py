"""What an experiment has to pass before it is stored, and a run before it starts: nothing is written when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from services.orchestrator.experiment import ExperimentSpec
from services.orchestrator.ports import Gateway, Metrics
from services.orchestrator.spec_codec import encode_spec, spec_hash
from services.orchestrator.validation import check_models, check_spec, names_places, with_needs, with_places
from services.runtime.errors import InvalidField


@dataclass(frozen=True, slots=True)
class AdmittedSpec:
    """A spec that is good, in its stored form."""

    encoded: bytes
    spec_hash: str
    cells: int


class Admission:
    """Checks specs: on their own, against the gateway's models, against the scorers of the metrics service."""

    def __init__(self, gateway: Gateway, metrics: Metrics, *, cells_max: int, cells_setting: str) -> None:
        """`cells_setting` is the environment variable behind `cells_max`."""
        self._gateway = gateway
        self._metrics = metrics
        self._cells_max = cells_max
        self._cells_setting = cells_setting

    async def admit(self, spec: ExperimentSpec, token: str) -> AdmittedSpec:
        """Check a spec with the caller's token, and write what aliases stand for now into its stored form.

        Raises InvalidField that names the field, or what the peers raise.
        """
        if names_places(spec):
            spec = with_places(spec, (await self._gateway.list_models(token)).places)
        await asyncio.to_thread(self._check, spec)
        spec = await self._look_up(spec, token, keys_needed=False)
        cells, encoded = await asyncio.to_thread(self._check, spec)
        return AdmittedSpec(encoded, spec_hash(encoded), cells)

    async def admit_run(self, spec: ExperimentSpec, token: str) -> None:
        """Check once more before money is spent: models may have gone, keys may be missing, limits may have changed."""
        await asyncio.to_thread(self._check, spec)
        await self._look_up(spec, token, keys_needed=True)

    async def admit_scorers(self, spec: ExperimentSpec, token: str) -> ExperimentSpec:
        """Check a spec for the sake of its scorers alone; the spec with what the metrics service tells about them."""
        await asyncio.to_thread(self._check, spec)
        return await self._look_up_scorers(spec, token)

    async def _look_up_scorers(self, spec: ExperimentSpec, token: str) -> ExperimentSpec:
        if not spec.scorers:
            return spec
        spec = with_needs(spec, await self._metrics.list_scorers(token))
        try:
            await self._metrics.check_scorers(token, spec.scorers)
        except InvalidField as error:
            field = error.field.replace("]", "].scorer", 1)
            raise InvalidField(f"spec.{field}", error.message, reason=error.reason) from error
        return spec

    def _check(self, spec: ExperimentSpec) -> tuple[int, bytes]:
        cells = check_spec(spec, cells_max=self._cells_max, cells_setting=self._cells_setting)
        return cells, encode_spec(spec)

    async def _look_up(self, spec: ExperimentSpec, token: str, *, keys_needed: bool) -> ExperimentSpec:
        """Check a spec against what the peers have; the spec with what they tell about its scorers."""
        spec = await self._look_up_scorers(spec, token)
        models = await self._gateway.list_models(token)
        check_models(spec, models.names, models.not_configured if keys_needed else {})
        if spec.brands:
            try:
                await self._metrics.check_brands(token, spec.brands)
            except InvalidField as error:
                raise InvalidField(f"spec.{error.field}", error.message, reason=error.reason) from error
        return spec
