"""What a study would come to before anything is spent: cells, tokens, money, time, and what to think of first."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Protocol

from services.orchestrator.forecasts import ANSWERS_MIN, Filled, Lengths, assumed, from_other_studies, from_same_study
from services.orchestrator.limits import RunLimits
from services.orchestrator.ports import CallKind, Gateway, KnownModels, Prices
from services.orchestrator.product import CellAddress
from services.orchestrator.records import AnswerSample, RunRecord
from services.orchestrator.spec_view import SpecView
from services.orchestrator.states import RunStatus

OUTPUT_LIMIT_UNKNOWN = 4_096
"""Output tokens that a model writes at most where neither the study nor the gateway has a limit for it."""

SAMPLE_CELLS = 1_000
"""Cells of a model whose answers are looked at."""

RUNS_LOOKED_AT = 50
"""Runs of the project, the newest, among which measurements are looked for."""

STUDIES_LOOKED_AT = 10
"""Studies whose answers of a model are looked at where the one to be planned has none, the newest."""

PROMPTS_RENDERED = 2_000
"""Filled-in prompts whose size is taken; of more of them a sample."""

KINDS_MAX = 300
"""Kinds of calls that are priced one by one; of more of them each model's longest."""

SLOW_S = 3_600


class Basis(StrEnum):
    """What a forecast rests on."""

    SAME_STUDY = "same_study"
    SAME_MODEL = "same_model"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Amounts:
    """An amount that is expected, and the interval of forecasts.CONFIDENCE."""

    low: int
    expected: int
    high: int

    def plus(self, other: Amounts) -> Amounts:
        """The sum; its interval holds whatever the two have to do with each other."""
        return Amounts(self.low + other.low, self.expected + other.expected, self.high + other.high)


NOTHING = Amounts(0, 0, 0)


@dataclass(frozen=True, slots=True)
class ModelForecast:
    """What one model would come to; `cost` None: it has no price."""

    model: str
    cells: int
    input_tokens: Amounts
    output_tokens: Amounts
    cost: Amounts | None
    worst_case_nano_usd: int
    basis: Basis
    measured: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a study would come to. `duration_s` None: nothing is known of how fast its models answer."""

    cells: int
    models: tuple[ModelForecast, ...]
    cost: Amounts
    worst_case_nano_usd: int
    duration_s: int | None
    warnings: tuple[str, ...]


class Measurements(Protocol):
    """Runs so far, and the answers of some of their cells."""

    async def list_runs(
        self, project_id: str, experiment_id: str, statuses: Collection[RunStatus], before_id: str, limit: int
    ) -> list[RunRecord]: ...
    async def sample_answers(self, run_id: str, cells: list[int]) -> list[AnswerSample]: ...


class Views(Protocol):
    """Specs by content."""

    async def get(self, project_id: str, spec_hash: str) -> SpecView: ...


@dataclass(frozen=True, slots=True)
class _Measured:
    basis: Basis
    lengths: Lengths
    count: int
    latency_s: float | None


class Planner:
    """Plans studies of all projects."""

    def __init__(self, ledger: Measurements, views: Views, gateway: Gateway, prices: Prices) -> None:
        self._ledger = ledger
        self._views = views
        self._gateway = gateway
        self._prices = prices

    async def plan(self, project_id: str, view: SpecView, spec_hash: str, limits: RunLimits, token: str) -> Forecast:
        """Foretell a run of a spec under limits, with the caller's own token. Raises DomainError of the peers."""
        known = await self._gateway.list_models(token)
        runs = await self._ledger.list_runs(project_id, "", (), "", RUNS_LOOKED_AT)
        runs = [run for run in runs if run.statistics.done]
        bytes_of_prompt = await asyncio.to_thread(_mean_bytes, view)
        measured, kinds = [], []
        for index in range(len(view.spec.models)):
            limit_counts = _output_limits(view, index, known)
            found = await self._measured(project_id, view, spec_hash, index, runs, max(limit_counts))
            measured.append(found)
            kinds.append(_kinds(view, index, limit_counts, found.lengths, bytes_of_prompt))
        costs = await self._prices.estimate(token, [kind for each in kinds for kind in each])
        forecasts = []
        for index, (found, mine) in enumerate(zip(measured, kinds, strict=True)):
            forecasts.append(_forecast(view, index, found, mine, [costs[kind] for kind in mine]))
        duration_s = _duration_s(view, limits, measured)
        total = NOTHING
        for forecast in forecasts:
            total = total.plus(forecast.cost or NOTHING)
        return Forecast(
            view.product.cells,
            tuple(forecasts),
            total,
            sum(forecast.worst_case_nano_usd for forecast in forecasts),
            duration_s,
            tuple(_warnings(view, limits, known, forecasts, duration_s)),
        )

    async def _measured(
        self, project_id: str, view: SpecView, spec_hash: str, model: int, runs: list[RunRecord], limit: int
    ) -> _Measured:
        """The newest answers to the same prompts, else the model's in its newest studies."""
        for run in (run for run in runs if run.spec_hash == spec_hash):
            samples = await self._ledger.sample_answers(run.run_id, _some_cells(view, model))
            by_filled: defaultdict[Filled, list[int]] = defaultdict(list)
            for sample in samples:
                address = view.address(sample.cell)
                by_filled[Filled(address.prompt, address.row)].append(sample.output_tokens)
            product = view.product
            lengths = from_same_study(by_filled, product.prompts, product.rows, product.points * product.repeats)
            if lengths is not None:
                return _Measured(Basis.SAME_STUDY, lengths.at_most(limit), len(samples), _latency_s(samples))
        samples_of = await self._newest_studies(project_id, view.spec.models[model].model, runs)
        rough = from_other_studies([fmean(sample.output_tokens for sample in samples) for samples in samples_of])
        if rough is None:
            return _Measured(Basis.ASSUMED, assumed(limit), 0, None)
        return _Measured(Basis.SAME_MODEL, rough.at_most(limit), sum(map(len, samples_of)), _latency_s(samples_of[0]))

    async def _newest_studies(self, project_id: str, model: str, runs: list[RunRecord]) -> list[list[AnswerSample]]:
        """Answers of a model in each of the newest studies with enough of them; of runs of one study, the newest."""
        found: dict[str, list[AnswerSample]] = {}
        for run in runs:
            if len(found) == STUDIES_LOOKED_AT:
                break
            if run.spec_hash in found:
                continue
            other = await self._views.get(project_id, run.spec_hash)
            for index in other.model_indices(frozenset([model])):
                samples = await self._ledger.sample_answers(run.run_id, _some_cells(other, index))
                if len(samples) >= ANSWERS_MIN:
                    found[run.spec_hash] = samples
                    break
        return list(found.values())


def _latency_s(samples: list[AnswerSample]) -> float:
    return fmean(sample.latency_us for sample in samples) / 1_000_000


def _some_cells(view: SpecView, model: int) -> list[int]:
    """Cells of a model: all, or as many as are looked at, the same for the same product."""
    product = view.product
    others = product.cells // product.models
    rng = random.Random(others)  # noqa: S311 (a sample that is the same each time)
    cells = []
    for number in sorted(rng.sample(range(others), min(others, SAMPLE_CELLS))):
        rest, repeat = divmod(number, product.repeats)
        rest, point = divmod(rest, product.points)
        prompt, row = divmod(rest, product.rows)
        cells.append(product.index(CellAddress(prompt, row, model, point, repeat)))
    return cells


def _mean_bytes(view: SpecView) -> float:
    """UTF-8 bytes of a filled-in prompt, on average; exact up to PROMPTS_RENDERED of them."""
    count = view.product.prompts * view.product.rows
    step = max(1, math.ceil(count / PROMPTS_RENDERED))
    sizes = []
    for number in range(0, count, step):
        prompt, row = divmod(number, view.product.rows)
        sizes.append(sum(len(text.encode()) for _, text in view.messages(prompt, row)))
    return fmean(sizes)


def _output_limits(view: SpecView, model: int, known: KnownModels) -> Counter[int]:
    """Cells of a model by the limit of their output."""
    each = view.product.cells // view.product.models // view.product.points
    fallback = known.output_limits.get(view.spec.models[model].model, OUTPUT_LIMIT_UNKNOWN)
    limits: Counter[int] = Counter()
    for point in range(view.product.points):
        stated = view.parameters(model, point).get("max_output_tokens")
        limits[int(stated) if isinstance(stated, int | float) and stated else fallback] += each
    if len(limits) * view.product.models > KINDS_MAX:
        return Counter({max(limits): sum(limits.values())})
    return limits


def _kinds(
    view: SpecView, model: int, limits: Counter[int], lengths: Lengths, bytes_of_prompt: float
) -> list[CallKind]:
    """The calls of a model to be priced: at the least, as expected, at the most, for each limit of the output.

    A token is expected for every 4 bytes of the prompt; for every 6 at the least and every 2 at the most.
    """
    name = view.spec.models[model].model
    kinds = []
    for limit, calls in sorted(limits.items()):
        bounded = lengths.at_most(limit)
        for bytes_per_token, output in ((6, bounded.low), (4, bounded.expected), (2, bounded.high)):
            input_tokens = math.ceil(bytes_of_prompt / bytes_per_token)
            kinds.append(CallKind(name, input_tokens, limit, math.ceil(output), calls))
    return kinds


def _forecast(
    view: SpecView, model: int, found: _Measured, kinds: list[CallKind], costs: list[tuple[int, int] | None]
) -> ModelForecast:
    def amounts(values: list[int]) -> Amounts:
        return Amounts(sum(values[::3]), sum(values[1::3]), sum(values[2::3]))

    priced = [cost for cost in costs if cost is not None]
    cost = amounts([expected for expected, _ in priced]) if len(priced) == len(kinds) else None
    return ModelForecast(
        view.spec.models[model].model,
        view.product.cells // view.product.models,
        amounts([kind.input_tokens * kind.calls for kind in kinds]),
        amounts([kind.output_tokens * kind.calls for kind in kinds]),
        cost,
        sum(worst for _, worst in priced[2::3]) if cost else 0,
        found.basis,
        found.count,
    )


def _duration_s(view: SpecView, limits: RunLimits, measured: list[_Measured]) -> int | None:
    """Seconds under the concurrency and the rates, from measured latencies; None where the rates decide nothing."""
    each = view.product.cells // view.product.models
    paced: Counter[str] = Counter()
    for model in view.spec.models:
        paced[model.provider] += each
    by_rate = max(60 * cells / rate if (rate := limits.rate_for(name)) else 0.0 for name, cells in paced.items())
    latencies = [found.latency_s for found in measured if found.latency_s is not None]
    if not latencies:
        return math.ceil(by_rate) or None
    mean_s = fmean(latencies)
    return math.ceil(max(by_rate, view.product.cells * mean_s / limits.concurrency))


def _warnings(
    view: SpecView,
    limits: RunLimits,
    known: KnownModels,
    forecasts: list[ModelForecast],
    duration_s: int | None,
) -> list[str]:
    warnings = []
    for name, setting in known.not_configured.items():
        provider = name.partition("/")[0]
        if any(name in (model.model, f"{model.provider}/*") for model in view.spec.models):
            warnings.append(f"The gateway has no key for {provider}: set {setting} before the study is run.")
    for each in forecasts:
        if each.cost is None:
            warnings.append(f"{each.model} has no price: what its calls cost is unknown, and budgets can't count them.")
        if each.basis is Basis.ASSUMED:
            warnings.append(
                f"No answer of {each.model} has been measured yet: its interval reaches from one token to its limit. "
                "A run with a few rows first makes it narrow."
            )
        elif each.basis is Basis.SAME_MODEL:
            warnings.append(f"The answers of {each.model} were measured with other prompts, so its interval is wide.")
    paced = sorted({model.provider for model in view.spec.models if limits.rate_for(model.provider)})
    if duration_s is not None and duration_s > SLOW_S and paced:
        rates = ", ".join(f"{name} {limits.rate_for(name)}" for name in paced)
        warnings.append(f"Requests a minute ({rates}) may decide how long it takes; see `requests_per_minute`.")
    if any(target.needs_model for target in view.spec.scorers):
        warnings.append("Some scorers call models themselves: what that costs comes on top.")
    return warnings
