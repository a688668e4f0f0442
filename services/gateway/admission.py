"""Which calls may begin, and which are under way: the bound, and cancelling by id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from services.gateway.calls import Call, Owner
from services.gateway.failures import refused

_RETRY_AFTER_MS = 250


class ActiveCall:
    """A call under way, which may take `timeout_ms`; `limit` is what stops it once it runs.

    `answered`: its answer is complete, so that nothing is left to stop.
    """

    __slots__ = ("_timed", "answered", "cancelled", "expired", "limit", "timeout_ms")

    def __init__(self, timeout_ms: int, *, timed: bool = True) -> None:
        """Not `timed`: somebody else stops it in time."""
        self.timeout_ms = timeout_ms
        self.answered = False
        self.cancelled = False
        self.expired = False
        self.limit: asyncio.Timeout | None = None
        self._timed = timed

    def limited(self) -> asyncio.Timeout:
        """The context in which it runs: raises TimeoutError when it is stopped."""
        self.limit = asyncio.timeout(self.timeout_ms / 1_000 if self._timed else None)
        return self.limit

    def has_answer(self) -> None:
        """The answer is complete: the deadline must not cut the settlement."""
        self.answered = True
        if self.limit is not None and self.limit.when() is not None:
            self.limit.reschedule(None)

    def cancel(self) -> None:
        """Stop the call as its deadline would: at once, settled, with an outcome."""
        self.cancelled = True
        self._stop()

    def expire(self) -> None:
        """Its deadline came sooner than was thought."""
        self.expired = True
        self._stop()

    def _stop(self) -> None:
        limit = self.limit
        # Nothing is left to stop where the deadline has struck, or where the answer is complete.
        if limit is not None and not limit.expired() and not self.answered:
            limit.reschedule(asyncio.get_running_loop().time())


class _Place:
    """A call's place among those under way."""

    __slots__ = ("_active", "_key", "_taken")

    def __init__(self, taken: dict[tuple[str, str], ActiveCall], key: tuple[str, str], active: ActiveCall) -> None:
        self._taken = taken
        self._key = key
        self._active = active

    def __enter__(self) -> ActiveCall:
        self._taken[self._key] = self._active
        return self._active

    def __exit__(self, *_: object) -> None:
        del self._taken[self._key]


class Admission:
    """The first layer: nothing is held or sent for a call that it refuses."""

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._active: dict[tuple[str, str], ActiveCall] = {}

    @property
    def under_way(self) -> int:
        """Calls that have begun and not ended."""
        return len(self._active)

    def admitted(self, owner: Owner, call: Call) -> _Place:
        """The call is under way inside, for `with`.

        Raises CallFailed, not dispatched: OVERLOADED above the bound, CALL_ALREADY_DISPATCHED for an id that is under
        way.
        """
        if len(self._active) >= self._max_calls:
            message = f"this gateway has {self._max_calls} calls under way, which is its limit; try again"
            raise refused("OVERLOADED", message, retry_after_ms=_RETRY_AFTER_MS)
        key = (owner.project_id, call.call_id)
        if key in self._active:
            message = f"call {call.call_id!r} is under way already; use another call id"
            raise refused("CALL_ALREADY_DISPATCHED", message, field="call.call_id")
        return _Place(self._active, key, ActiveCall(call.timeout_ms))

    def cancel(self, owner: Owner, call_ids: Iterable[str]) -> list[str]:
        """Stop the project's calls with these ids; returns those that were under way."""
        found = []
        for call_id in dict.fromkeys(call_ids):
            active = self._active.get((owner.project_id, call_id))
            if active is not None:
                active.cancel()
                found.append(call_id)
        return found
