"""Times of one call by a monotonic clock, in microseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.gateway.chunks import Event, ReasoningDelta, TextDelta, ToolCallDelta
from services.runtime.clock import Clock

_OUTPUT = (TextDelta, ToolCallDelta)


@dataclass(frozen=True, slots=True)
class Timing:
    """What `llmlab.api.gateway.v1.Timing` says, without the wire.

    TTFT counts from the request's leaving; None where nothing of the kind arrived. `streamed` False means that the
    provider gave one chunk: times between tokens are then unknown, not 0.
    """

    latency_us: int
    queue_us: int
    ttft_any_us: int | None = None
    ttft_output_us: int | None = None
    chunks: int = 0
    streamed: bool = True

    @property
    def since_leaving_us(self) -> int:
        """From the request's leaving to the last content."""
        return self.latency_us - self.queue_us


class Stopwatch:
    """Follows one call from its arrival to its last content."""

    __slots__ = ("_arrived", "_clock", "_first_any", "_first_output", "_last", "_left", "chunks", "started_at_us")

    def __init__(self, clock: Clock, arrived_s: float | None = None) -> None:
        """`arrived_s` is when the call arrived, by the monotonic clock; now where it is left out."""
        self._clock = clock
        self._arrived = clock.monotonic_s() if arrived_s is None else arrived_s
        self._left: float | None = None
        self._first_any: float | None = None
        self._first_output: float | None = None
        self._last: float | None = None
        self.chunks = 0
        self.started_at_us = 0

    @property
    def left(self) -> bool:
        """Whether the request has left for the provider."""
        return self._left is not None

    def leave(self) -> None:
        """The request leaves for the provider."""
        self._left = self._clock.monotonic_s()
        self.started_at_us = self._clock.now_us()

    def arrived(self, events: Iterable[Event]) -> int:
        """Events of one read arrived now. Returns their offset after the leaving, in microseconds."""
        now = self._clock.monotonic_s()
        left = self._left if self._left is not None else now
        for event in events:
            if isinstance(event, _OUTPUT):
                if self._first_output is None:
                    self._first_output = now
            elif not isinstance(event, ReasoningDelta):
                continue
            self.chunks += 1
            self._last = now
        if self._first_any is None and self._last is not None:
            self._first_any = now
        return round((now - left) * 1_000_000)

    def since_leaving_us(self) -> int:
        """How long the attempt has taken so far; 0 where it has not left."""
        return 0 if self._left is None else _microseconds(self._clock.monotonic_s() - self._left)

    def until_s(self, delay_s: float) -> float:
        """Seconds that are left of `delay_s` after the leaving; all of them where it has not left."""
        return delay_s if self._left is None else self._left + delay_s - self._clock.monotonic_s()

    @property
    def ttft_any_us(self) -> int | None:
        """From the leaving to the first content of any kind; None where none has arrived."""
        if self._first_any is None or self._left is None:
            return None
        return _microseconds(self._first_any - self._left)

    def timing(self, *, streamed: bool) -> Timing:
        """The times so far. A call without content is timed to now."""
        left = self._left if self._left is not None else self._clock.monotonic_s()
        end = self._last if self._last is not None else self._clock.monotonic_s()
        return Timing(
            latency_us=_microseconds(end - self._arrived),
            queue_us=_microseconds(left - self._arrived),
            ttft_any_us=None if self._first_any is None else _microseconds(self._first_any - left),
            ttft_output_us=None if self._first_output is None else _microseconds(self._first_output - left),
            chunks=self.chunks,
            streamed=streamed,
        )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1_000_000))
