"""Calls for verdicts on answers of a run, under ids that say what they are for.

A request that is sent again, after a crash or a lost connection, comes to the same ids. Where a call has left under its
id, another one is refused before anything is held or sent, and made under the verdict's next id. There are few of them:
so the bills of one verdict are bounded, however often it is asked for.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.metrics.judge.calls import Again, Ask, JudgeCalls, JudgeModel, Reply
from services.runtime.backoff import Backoff

_REFUSALS_MAX: Final = 20
"""How often a verdict may be refused before anything is sent, by limits for example, until it is missing."""
_BACKOFF: Final = Backoff(base_ms=100, cap_ms=5_000)


@dataclass(slots=True)
class _Verdict:
    """A verdict that is still asked for, and what its calls have cost so far."""

    place: int
    ask: Ask
    ordinal: int = 1
    refusals: int = 0
    cost_nano_usd: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def bill(self, reply: Reply) -> None:
        """Add what a call took."""
        self.cost_nano_usd += reply.cost_nano_usd
        self.unpriced_calls += reply.unpriced_calls
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens

    def closed(self, reply: Reply) -> Reply:
        """The last reply with the bill of all."""
        return replace(
            reply,
            cost_nano_usd=self.cost_nano_usd,
            unpriced_calls=self.unpriced_calls,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
        )


class RunCalls:
    """Implements JudgeCalls for one request of a run."""

    def __init__(self, calls: JudgeCalls, name: Callable[[int, int], str], *, at_once_max: int, ids_max: int) -> None:
        """`name` gives the call id of a verdict, by its place among the asks and the ordinal of the id, from 1."""
        self._calls = calls
        self._name = name
        self._at_once_max = at_once_max
        self._ids_max = ids_max

    async def ask(self, token: str, judge: JudgeModel, asks: Sequence[Ask]) -> list[Reply]:
        """See JudgeCalls.ask. At most `at_once_max` calls are under way."""
        waiting = deque(_Verdict(place, ask) for place, ask in enumerate(asks))
        closed: dict[int, Reply] = {}
        while waiting:
            some = [waiting.popleft() for _ in range(min(self._at_once_max, len(waiting)))]
            named = [replace(each.ask, call_id=self._name(each.place, each.ordinal)) for each in some]
            wait_ms = 0
            for verdict, reply in zip(some, await self._calls.ask(token, judge, named), strict=True):
                if self._goes_on(verdict, reply):
                    waiting.append(verdict)
                    wait_ms = max(wait_ms, self._wait_ms(verdict, reply))
                else:
                    closed[verdict.place] = verdict.closed(reply)
            await asyncio.sleep(wait_ms / 1_000)
        return [closed[place] for place in range(len(asks))]

    def _goes_on(self, verdict: _Verdict, reply: Reply) -> bool:
        """Whether the verdict is asked for once more; counts what this reply cost."""
        if reply.again is Again.SAME_ID and verdict.refusals < _REFUSALS_MAX:
            # If it did leave, the next refusal says so, and is counted then.
            verdict.refusals += 1
            return True
        verdict.bill(reply)
        if reply.again is Again.NEW_ID and verdict.ordinal < self._ids_max:
            verdict.ordinal += 1
            return True
        return False

    @staticmethod
    def _wait_ms(verdict: _Verdict, reply: Reply) -> int:
        if reply.again is Again.NEW_ID and not reply.retry_after_ms:
            return 0
        rng = random.Random()  # noqa: S311 (jitter)
        return _BACKOFF.delay_ms(max(1, verdict.refusals), rng, at_least_ms=reply.retry_after_ms)
