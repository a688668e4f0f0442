"""The world around an orchestrator, in memory.

A gateway, a cost service, a metrics service and identity that keep the rules of the real ones (a call is held before it
leaves, a tombstoned id is never held) and fail when they are told to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from llmlab.api.common.v1.content_pb2 import ContentPart
from llmlab.api.common.v1.error_pb2 import CallError
from llmlab.api.metrics.v1 import statistics_pb2
from llmlab.api.metrics.v1.brands_pb2 import AnswerBrands, BrandFigures, BrandVisibility, DomainCitation
from llmlab.api.metrics.v1.metrics_pb2 import (
    DIRECTION_HIGHER_IS_BETTER,
    DIRECTION_NEUTRAL,
    SCALE_BINARY,
    SCALE_COUNT,
    SampleScores,
)
from services.orchestrator.brands import BrandColumns, Names
from services.orchestrator.calls import (
    NO_USAGE,
    Answer,
    AttemptState,
    CallOutcome,
    Failure,
    Money,
    PlannedCall,
    ResolvedAttempt,
    Settlement,
    Timing,
    Usage,
)
from services.orchestrator.estimates import ComparedGroup, Comparison, Estimate, Question, Series
from services.orchestrator.experiment import (
    BrandTarget,
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
    ScorerTarget,
)
from services.orchestrator.peers.metrics import merit_of
from services.orchestrator.ports import CallKind, KnownModels, NotSent, RunCredential, Sample, ScorerGroup, ScoringRun
from services.orchestrator.rpc.codec import answer_body
from services.orchestrator.scores import Scored, ScorerDeclaration
from services.runtime.errors import DomainError, InvalidField, Unavailable

PRICE = Money(5)

USAGE = Usage(input_tokens=3, output_tokens=2)

Ending = Answer | Failure
Script = Callable[[PlannedCall], Ending]


async def eventually(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Return as soon as the condition holds; TimeoutError when it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (nobody sets an event for what a test wants to see)
            await asyncio.sleep(0.005)


def answer(text: str = "fine", *, cost: Money | None = PRICE) -> Answer:
    """An answer of one text."""
    return Answer(
        text,
        answer_body([ContentPart(text=text)]),
        "STOP",
        "small-1",
        USAGE,
        cost,
        Timing(1_000, 100, 200, 50, 3, streamed=True),
    )


def failure(reason: str = "PROVIDER_ERROR", *, retryable: bool = True, dispatched: bool = True) -> Failure:
    """A failed call; one that was dispatched has cost nothing."""
    return Failure(reason, f"{reason} happened", retryable, dispatched, encoded=b"")


def unavailable(what: str) -> Unavailable:
    """The error of a peer that is away."""
    return Unavailable("DEPENDENCY_UNAVAILABLE", f"{what} is away")


@dataclass
class World:
    """What all peers share, and the switches of the test."""

    script: Script = lambda call: answer(f"answer to {call.call_id}")
    gateway_down: bool = False
    cost_down: bool = False
    metrics_down: bool = False
    delegations: dict[str, str] = field(default_factory=dict)
    """Call id -> the delegation under which the gateway was last asked for it."""
    dispatched: Counter[str] = field(default_factory=Counter)
    """How often each call id reached the provider: the mock's own log."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How often each call id got an outcome that reached the orchestrator."""
    holds: dict[str, AttemptState] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """Where set, answers wait for it."""
    cut_after: int | None = None
    """The number of outcomes after which every stream breaks, its calls made and settled."""
    under_way: int = 0
    most_under_way: int = 0
    score_requests: int = 0
    score_sizes: list[int] = field(default_factory=list)
    """The number of answers in each request for scores."""
    score_gate: asyncio.Event | None = None
    """Where set, scores wait for it."""
    settled_by_ledger: list[Settlement] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    """What runs may cost, nano-USD, each call being held at PRICE."""
    unsendable: frozenset[str] = frozenset()
    """Call ids for which the gateway refuses a whole batch."""
    paid_scorers: frozenset[str] = frozenset()
    """Scorers that call models."""
    unscorable: dict[int, DomainError] = field(default_factory=dict)
    """Cells for which metrics fails a whole batch, and how."""


class WorldGateway:
    """The gateway of a World."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def complete_batch(
        self, credential: RunCredential, calls: Sequence[PlannedCall], timeout_s: float
    ) -> AsyncIterator[list[CallOutcome]]:
        world = self._world
        await asyncio.sleep(0)
        if world.gateway_down:
            raise unavailable("the gateway")
        if world.unsendable.intersection(call.call_id for call in calls):
            raise NotSent("INVALID_FIELD", "a call breaks a rule", retryable=False)
        given = 0
        endings: list[tuple[PlannedCall, Ending]] = []
        try:
            for call in calls:
                world.delegations[call.call_id] = credential.delegation_id
                world.under_way += 1
                world.most_under_way = max(world.most_under_way, world.under_way)
                endings.append((call, self._call(call)))
            if world.gate is not None:
                await self._wait_at_the_gate(calls, world.gate)
            for call, ending in endings:
                if world.cut_after is not None and given >= world.cut_after:
                    raise unavailable("the gateway")
                stopped = call.call_id in world.cancelled and isinstance(ending, Answer)
                given += 1
                world.outcomes[call.call_id] += 1
                yield [CallOutcome(call.call_id, failure("CANCELLED", retryable=False) if stopped else ending)]
        finally:
            world.under_way -= len(calls)

    async def _wait_at_the_gate(self, calls: Sequence[PlannedCall], gate: asyncio.Event) -> None:
        ids = {call.call_id for call in calls}
        await eventually(lambda: gate.is_set() or ids.issubset(self._world.cancelled))

    def _call(self, call: PlannedCall) -> Ending:
        world, hold_id = self._world, f"{call.call_id}/1"
        if hold_id in world.holds:
            return failure("CALL_ALREADY_DISPATCHED", retryable=False, dispatched=False)
        spent = sum(call.plan.run_id == other.partition("/")[0] for other in world.dispatched) * PRICE.nano_usd
        if spent + PRICE.nano_usd > world.limits.get(call.plan.run_id, spent + PRICE.nano_usd):
            return failure("BUDGET_EXCEEDED", retryable=False, dispatched=False)
        ending = world.script(call)
        if isinstance(ending, Failure) and not ending.dispatched:
            world.holds[hold_id] = AttemptState.RELEASED
            return ending
        world.dispatched[call.call_id] += 1
        settled = ending.cost is not None
        world.holds[hold_id] = AttemptState.SETTLED if settled else AttemptState.HELD
        return ending

    async def cancel_calls(self, credential: RunCredential, call_ids: Sequence[str]) -> None:
        self._world.cancelled.extend(call_ids)

    async def list_models(self, token: str) -> KnownModels:
        if self._world.gateway_down:
            raise unavailable("the gateway")
        return KnownModels(
            frozenset({"mock/small", "mock/large", "openai/gpt"}),
            {"openai/gpt": "LLMLAB_GATEWAY_OPENAI_KEY"},
            {"fast": ("mock/small",), "spread": ("mock/small", "mock/large")},
        )


class WorldBills:
    """The cost service of a World."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def resolve_attempts(self, project_id: str, hold_ids: Sequence[str]) -> list[ResolvedAttempt]:
        if self._world.cost_down:
            raise unavailable("the cost service")
        attempts = []
        for hold_id in hold_ids:
            state = self._world.holds.setdefault(hold_id, AttemptState.TOMBSTONED)
            settled = state is AttemptState.SETTLED
            attempts.append(ResolvedAttempt(hold_id, state, USAGE if settled else NO_USAGE, PRICE if settled else None))
        return attempts

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[Money | DomainError]:
        if self._world.cost_down:
            raise unavailable("the cost service")
        self._world.settled_by_ledger.extend(settlements)
        for item in settlements:
            self._world.holds[item.attempt_id] = AttemptState.SETTLED
        return [PRICE for _ in settlements]


class WorldBudgets:
    """Limits of runs in a World; `World.limits` has them."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def limit_run(self, project_id: str, run_id: str, limit_nano_usd: int) -> None:
        self._world.limits[run_id] = limit_nano_usd

    async def lift_run(self, project_id: str, run_id: str) -> None:
        self._world.limits.pop(run_id, None)


class WorldPrices:
    """Prices of a World: a nano-dollar a token of input, two a token of output; none for mock/large."""

    async def estimate(self, token: str, kinds: Sequence[CallKind]) -> dict[CallKind, tuple[int, int] | None]:
        return {
            kind: None
            if kind.model == "mock/large"
            else (
                kind.calls * (kind.input_tokens + 2 * kind.output_tokens),
                kind.calls * (kind.input_tokens + 2 * kind.output_limit),
            )
            for kind in kinds
        }


def _scores(sample: Sample) -> Scored:
    scored = SampleScores()
    scored.scores.add(
        name="length.words", value=len(sample.answer.split()), scale=SCALE_COUNT, direction=DIRECTION_NEUTRAL
    )
    scored.scores.add(
        name="is_fine", value="fine" in sample.answer, scale=SCALE_BINARY, direction=DIRECTION_HIGHER_IS_BETTER
    )
    return Scored(scored.SerializeToString(), merit_of(scored))


class WorldMetrics:
    """The metrics service of a World: one score, the answer's length."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def score_batch(
        self, run: ScoringRun, groups: Sequence[ScorerGroup], samples: Sequence[Sample]
    ) -> list[Scored]:
        self._world.score_requests += 1
        self._world.score_sizes.append(len(samples))
        await asyncio.sleep(0)
        if self._world.score_gate is not None:
            await self._world.score_gate.wait()
        if self._world.metrics_down:
            raise unavailable("metrics")
        for sample in samples:
            if sample.cell in self._world.unscorable:
                raise self._world.unscorable[sample.cell]
        return [_scores(sample) for sample in samples]

    def refused(self, error: DomainError) -> Scored:
        return Scored(SampleScores(error=CallError(message=error.message)).SerializeToString())

    async def check_scorers(self, token: str, targets: Sequence[ScorerTarget]) -> None:
        """Every parameter of theirs is good."""

    async def check_brands(self, token: str, brands: Sequence[BrandTarget]) -> None:
        for index, brand in enumerate(brands):
            if not any(map(str.isalnum, brand.name)):
                raise InvalidField(f"brands[{index}].name", "a name has letters or digits")

    async def detect_brands(
        self, project_id: str, brands: Sequence[BrandTarget], samples: Sequence[Sample]
    ) -> list[bytes]:
        """Counts the names' exact occurrences."""
        if self._world.metrics_down:
            raise unavailable("metrics")
        return [_found_brands(brands, sample.answer) for sample in samples]

    async def summarize_brands(
        self, token: str, names: Names, run: BrandColumns, baseline: BrandColumns | None
    ) -> list[bytes]:
        """The mentions of each brand and the cells without an answer; enough to see that the right ones were sent."""
        return [_visibility(name, index, run, baseline) for index, name in enumerate(names.brands)]

    async def list_scorers(self, token: str) -> list[ScorerDeclaration]:
        if self._world.metrics_down:
            raise unavailable("metrics")
        none: frozenset[str] = frozenset()
        return [
            ScorerDeclaration(name, needs_reference, none, none, needs_model=name in self._world.paid_scorers)
            for name, needs_reference in (("length", False), ("exact_match", True))
        ]

    async def summarize(self, token: str, series: Sequence[Series]) -> list[tuple[Estimate, ...]]:
        return [
            tuple(_estimate(each, quantile) for quantile in each.quantiles) if each.quantiles else (_estimate(each, 0),)
            for each in series
        ]

    async def compare(self, token: str, question: Question) -> list[Comparison]:
        best, *others = sorted(question.groups, key=_mean, reverse=not question.lower_is_better)
        if question.baseline:
            others, best = question.groups[:1], question.groups[1]
        return [
            Comparison(
                group.key,
                statistics_pb2.Comparison(
                    first=group.key, second=best.key, losses=len(group.units), ties=len(group.missing_units)
                ).SerializeToString(),
            )
            for group in others
        ]


def _mean(group: ComparedGroup) -> float:
    return sum(group.values) / len(group.values) if group.values else 0.0


def _found_brands(brands: Sequence[BrandTarget], answer: str) -> bytes:
    counts = [(index, answer.count(brand.name)) for index, brand in enumerate(brands)]
    named = [(index, count) for index, count in counts if count]
    message = AnswerBrands(
        sample_id="looked through",
        citations=[DomainCitation(domain="example.org", times=1)] if "example.org" in answer else (),
    )
    for position, (index, count) in enumerate(named, 1):
        message.brands.add(brand=index, mentions=count, position=position)
        start = answer.index(brands[index].name)
        message.mentions.add(brand=index, start=start, end=start + len(brands[index].name), context=answer)
    return message.SerializeToString()


def _visibility(name: str, index: int, run: BrandColumns, baseline: BrandColumns | None) -> bytes:
    def figures(columns: BrandColumns) -> BrandFigures:
        mentions = [found.mentions for _, found in columns.found if found.brand == index]
        missing = len(columns.missing)
        return BrandFigures(mentions=sum(mentions), answers=len(columns.prompts) - missing, missing=missing)

    visibility = BrandVisibility(brand=name, figures=figures(run))
    if baseline is not None:
        visibility.change.difference = figures(run).mentions - figures(baseline).mentions
    return visibility.SerializeToString()


def _estimate(series: Series, quantile: float) -> Estimate:
    """The mean, where there is anything; enough to see that the right numbers were sent."""
    values = series.values
    message = statistics_pb2.Estimate(method=series.kind, count=len(values), missing=series.missing, quantile=quantile)
    if values:
        message.value = sum(values) / len(values)
    message.clusters = len(set(series.clusters or range(len(values))))
    return Estimate(message.SerializeToString())


class WorldIdentity:
    """The identity service of a World."""

    def __init__(self) -> None:
        self.delegations: dict[str, str] = {}
        self.revoked: list[str] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """What happens elsewhere while a delegation is made."""

    async def create_delegation(self, token: str, purpose: str) -> str:
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.delegations.setdefault(purpose, f"dlg_{len(self.delegations)}")

    async def revoke_delegation(self, project_id: str, delegation_id: str) -> None:
        self.revoked.append(delegation_id)


def study(*, rows: int = 4, temperatures: tuple[float, ...] = (0.0, 1.0), repeats: int = 1) -> ExperimentSpec:
    """A small study on two mock models: 2 x rows x temperatures x repeats cells."""
    return ExperimentSpec(
        prompts=(PromptTemplate("ask", (MessageTemplate("user", "Say {{word}}"),)),),
        models=(ModelTarget("mock/small"), ModelTarget("mock/large")),
        rows=tuple({"word": f"word {row}"} for row in range(rows)),
        grid=(ParameterAxis("temperature", temperatures),),
        repeats=repeats,
    )
