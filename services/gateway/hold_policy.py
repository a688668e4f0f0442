"""Which calls may go on without a hold while the cost service is away.

A call of a project without a hard budget may (`fail_open`): it cannot exceed what nobody limited, and its bill is kept.
A call of a project with one may not, nor one of a run, whose ledger reads its holds, nor one of a project about which
nothing is known, or nothing recent: a budget may have been made since (`fail_closed`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from services.gateway.attempts import Attempt
from services.gateway.calls import Owner
from services.gateway.cost_port import CostPort
from services.gateway.recent import Recent
from services.runtime.clock import Clock
from services.runtime.errors import DomainError

_ASKED_EVERY_S = 30.0
_AWAY_FOR_S = 1.0
_PROJECTS_MAX = 10_000


@dataclass(slots=True)
class _Project:
    """What is known of a project, and since when; `limited` None: nothing."""

    limited: bool | None = None
    known_s: float = float("-inf")
    asked_s: float = float("-inf")


class HoldPolicy:
    """Follows which projects have hard budgets, and whether the cost service is there."""

    def __init__(self, cost: CostPort, clock: Clock, *, fail_open: bool, known_for_s: float = 900.0) -> None:
        """`known_for_s`: what is known of a project counts for so long after the cost service said it."""
        self._known_for_s = known_for_s
        self._cost = cost
        self._clock = clock
        self._fail_open = fail_open
        self._projects = Recent(lambda _: _Project(), _PROJECTS_MAX)
        self._away_until_s = float("-inf")
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def away(self) -> bool:
        """Whether the cost service failed to answer a moment ago, so that asking again would only take time."""
        return self._clock.monotonic_s() < self._away_until_s

    def failed(self) -> None:
        """The cost service did not answer."""
        self._away_until_s = self._clock.monotonic_s() + _AWAY_FOR_S

    def answered(self, owner: Owner) -> None:
        """The cost service held money for the project: now and then it is asked about its budgets, too."""
        self._away_until_s = float("-inf")
        project = self._projects.get(owner.project_id)
        now_s = self._clock.monotonic_s()
        if self._fail_open and now_s - project.asked_s >= _ASKED_EVERY_S:
            project.asked_s = now_s
            task = asyncio.create_task(self._ask(owner, project), name="hard-budgets")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def may_go_on(self, attempt: Attempt) -> bool:
        """Whether the attempt may leave without a hold."""
        if not self._fail_open or attempt.request.call.run_id:
            return False
        project = self._projects.get(attempt.owner.project_id)
        return project.limited is False and self._clock.monotonic_s() - project.known_s <= self._known_for_s

    async def close(self) -> None:
        """Stop asking."""
        for task in tuple(self._asking):
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    async def _ask(self, owner: Owner, project: _Project) -> None:
        try:
            # As of before the question: a budget that is made while it is answered may not be in the answer.
            known_s = self._clock.monotonic_s()
            project.limited = await self._cost.has_hard_budget(owner)
            project.known_s = known_s
        except DomainError:
            project.asked_s = float("-inf")
