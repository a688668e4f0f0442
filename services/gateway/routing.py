"""Where the attempts of a call go: which deployment first, and which one, or which other model, after a failure.

Among the deployments of a model the choice follows their weights, evenly spread (smooth weighted round-robin, as in
nginx), over those that are healthy: breaker not open, and not resting after a Retry-After. After a failure:

    no room or an open breaker      another deployment of the model, at once; nothing was held
    a failure that may pass         a retry: at another deployment at once, at the same one after a pause
    anything that another model     the fallbacks of its kind, in their order
    may still answer

Never after the first content, and never after a failure where the model may have worked unseen, unless the call allows
that. Sending stays bounded: retries by `retries_max` and the retry budget, fallbacks by their list.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from services.gateway.attempts import Attempt, Cause
from services.gateway.calls import Call, for_another_kind
from services.gateway.capabilities import check_capabilities
from services.gateway.catalogue import Catalogue, Deployment, Route
from services.gateway.failures import CallFailed, Failure
from services.gateway.recent import Recent
from services.gateway.retries import Retries
from services.runtime.clock import Clock

_ROUTES_KEPT = 10_000
_REFUSALS_MAX = 3
"""Deployments without room that are tried before the call waits for one: each may cost a question to Redis."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next attempt: where, why, after how many seconds, and whether it waits for room within its limits."""

    deployment: Deployment
    cause: Cause
    pause_s: float = 0.0
    waits: bool = True


class Router:
    """The routing layer of the pipeline."""

    def __init__(
        self,
        retries: Retries,
        clock: Clock,
        *,
        is_open: Callable[[Deployment], bool] = lambda _: False,
        rng: random.Random | None = None,
    ) -> None:
        """`is_open` says whether a deployment's breaker would refuse a call now; `rng` spreads where replicas begin."""
        self.retries = retries
        self.clock = clock
        self.is_open = is_open
        spread = rng or random.Random()  # noqa: S311 (spreads load, hides nothing)
        self._turns = Recent(lambda _: _Turns(spread), _ROUTES_KEPT)
        self._resting_until_s = Recent(lambda _: _Rest(), _ROUTES_KEPT)

    def way(self, catalogue: Catalogue, call: Call) -> Way:
        """The attempts of a call. Raises CallFailed, not dispatched, where there is not even a first one."""
        route = catalogue.route(call.model)
        way = Way(self, catalogue, call, check_capabilities(call, route))
        self.retries.began(way.first.deployment.name)
        return way

    def pick(self, route: Route, excluded: Collection[str], *, ignores_breakers: bool) -> Deployment | None:
        """The deployment whose turn it is, healthy ones before others; None where all are excluded."""
        if len(route.deployments) == 1:
            only = route.deployments[0][0]
            return None if only.name in excluded else only
        left = [choice for choice in route.deployments if choice[0].name not in excluded]
        now_s = self.clock.monotonic_s()
        healthy = [
            choice
            for choice in left
            if self._resting_until_s.get(choice[0].name).until_s <= now_s
            and (ignores_breakers or not self.is_open(choice[0]))
        ]
        return self._turns.get(route.name).next(healthy or left) if left else None

    def rest(self, deployment: Deployment, retry_after_ms: int) -> None:
        """The provider asked to be left alone for so long; routed calls go elsewhere meanwhile."""
        if retry_after_ms:
            rest = self._resting_until_s.get(deployment.name)
            rest.until_s = max(rest.until_s, self.clock.monotonic_s() + retry_after_ms / 1_000)


class Way:
    """The way of one call from attempt to attempt."""

    def __init__(self, router: Router, catalogue: Catalogue, call: Call, route: Route) -> None:
        self._router = router
        self._catalogue = catalogue
        self._call = call
        self._origin = self._route = route
        self._tried = {route.name}
        self._retried = 0
        self._hedged = False
        self._no_room: set[str] = set()
        self._waits_ms: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self.first = self._step(Cause.FIRST)

    @property
    def hedge_after_ms(self) -> int | None:
        """See Route.hedge_after_ms; what the call asks for goes first. None after the one that a call may have."""
        call = self._call
        if self._hedged:
            return None
        if call.hedge_after_ms is not None:
            return call.hedge_after_ms
        return self._route.hedge_after_ms if call.fallbacks else None

    def call_for(self, deployment: Deployment) -> Call:
        """The call as it is sent there: a fallback of another kind gets nothing that only the first kind knows."""
        same = self._route is self._origin or deployment.kind == self._origin.deployments[0][0].kind
        return self._call if same else for_another_kind(self._call)

    def after(self, attempt: Attempt, failure: Failure) -> Step | None:
        """The attempt that follows a failed one; None: there is none."""
        name = attempt.deployment.name
        if not attempt.reserved:
            self._no_room.add(name)
            if failure.reason == "RATE_LIMITED" and not attempt.waits:
                self._waits_ms[name] = failure.retry_after_ms
            return self._where_there_is_room() or self._instead(failure)
        self.failed(attempt)
        return self._again(attempt) or self._instead(failure)

    def failed(self, attempt: Attempt) -> None:
        """An attempt that was held for failed: other deployments come before its own."""
        retry_after_ms = 0 if attempt.failure is None else attempt.failure.retry_after_ms
        self._failed[attempt.deployment.name] = retry_after_ms
        self._router.rest(attempt.deployment, retry_after_ms)

    def beside(self, attempt: Attempt) -> Step:
        """A second attempt while this one runs, the only one; at another deployment where one is healthy."""
        self._hedged = True
        other = self._pick({attempt.deployment.name, *self._no_room, *self._failed})
        return Step(other or attempt.deployment, Cause.HEDGE, waits=False)

    def _where_there_is_room(self) -> Step | None:
        if len(self._no_room) < _REFUSALS_MAX and (other := self._pick({*self._no_room, *self._failed})):
            return Step(other, Cause.REROUTE, waits=False)
        if not self._waits_ms:
            return None
        # Those with a limit were asked without waiting: wait where it takes the shortest time, once.
        name = min(self._waits_ms, key=lambda name: self._waits_ms[name])
        self._waits_ms.clear()
        deployment = next(choice for choice, _ in self._route.deployments if choice.name == name)
        return Step(deployment, Cause.REROUTE)

    def _again(self, attempt: Attempt) -> Step | None:
        other = self._pick({*self._no_room, *self._failed})
        deployment = other or self._soonest(attempt.deployment)
        wait_ms = None if other else self._failed[deployment.name]
        pause_s = self._router.retries.pause_s(attempt, self._retried, wait_ms)
        if pause_s is None:
            return None
        self._retried += 1
        return Step(deployment, Cause.RETRY, pause_s, waits=self._is_alone)

    def _soonest(self, default: Deployment) -> Deployment:
        """Of the deployments that failed, the one that asked for the shortest wait; the last one among equals."""
        known = {choice.name: choice for choice, _ in self._route.deployments}
        name = min(self._failed, key=lambda name: (self._failed[name], name != default.name))
        return known[name]

    def _instead(self, failure: Failure) -> Step | None:
        kind = failure.rule.fallback
        if kind is None or failure.output_began or not self._call.fallbacks:
            return None
        if failure.ambiguous and not self._call.retry_ambiguous:
            return None
        for name in self._origin.fallbacks.get(kind, ()):
            if name in self._tried:
                continue
            self._tried.add(name)
            try:
                self._route = check_capabilities(self._call, self._catalogue.route(name))
            except CallFailed:
                # No key for it, or it cannot do what the call needs.
                continue
            self._no_room, self._waits_ms, self._failed = set(), {}, {}
            return self._step(Cause.FALLBACK)
        return None

    def _step(self, cause: Cause) -> Step:
        deployment = self._pick(())
        if deployment is None:
            raise AssertionError("a route has at least one deployment")
        return Step(deployment, cause, waits=self._is_alone)

    def _pick(self, excluded: Collection[str]) -> Deployment | None:
        return self._router.pick(self._route, excluded, ignores_breakers=self._call.ignore_circuit_breaker)

    @property
    def _is_alone(self) -> bool:
        """Whether the model has no other deployment, which may have room at once."""
        return len(self._route.deployments) == 1


@dataclass(slots=True)
class _Rest:
    until_s: float = 0.0


class _Turns:
    """Smooth weighted round-robin: everybody earns its weight, the richest gets the turn and pays for all."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._earned: dict[str, float] = {}

    def next(self, choices: list[tuple[Deployment, float]]) -> Deployment:
        earned = self._earned
        total = 0.0
        best, most = choices[0][0], float("-inf")
        for deployment, weight in choices:
            name = deployment.name
            total += weight
            if name not in earned:
                earned[name] = self._rng.random() * weight
            earned[name] += weight
            if earned[name] > most:
                best, most = deployment, earned[name]
        earned[best.name] -= total
        return best
