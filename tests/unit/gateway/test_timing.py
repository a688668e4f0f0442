"""Times of a call, on a clock that stands still."""

from __future__ import annotations

from services.gateway.chunks import Finished, FinishReason, ReasoningDelta, Started, TextDelta, ToolCallDelta
from services.gateway.timing import Stopwatch, Timing
from services.runtime.clock import ManualClock


def test_every_time_counts_from_its_own_beginning() -> None:
    clock = ManualClock(5_000_000)
    watch = Stopwatch(clock)
    clock.advance(0.010)
    watch.leave()
    clock.advance(0.020)
    assert watch.arrived([Started()]) == 20_000
    clock.advance(0.030)
    assert watch.arrived([ReasoningDelta("hm")]) == 50_000
    clock.advance(0.040)
    assert watch.arrived([TextDelta("a"), TextDelta("b")]) == 90_000
    clock.advance(0.050)
    assert watch.arrived([Finished(FinishReason.STOP)]) == 140_000
    assert watch.timing(streamed=True) == Timing(
        latency_us=100_000, queue_us=10_000, ttft_any_us=50_000, ttft_output_us=90_000, chunks=3, streamed=True
    )
    assert watch.since_leaving_us() == 140_000
    assert watch.started_at_us == 5_010_000


def test_a_tool_call_is_visible_output() -> None:
    clock = ManualClock()
    watch = Stopwatch(clock)
    watch.leave()
    clock.advance(0.5)
    watch.arrived([ToolCallDelta(0, "id", "name")])
    assert watch.timing(streamed=True).ttft_output_us == 500_000


def test_without_content_there_is_no_time_to_first_token() -> None:
    clock = ManualClock()
    watch = Stopwatch(clock)
    clock.advance(0.2)
    timing = watch.timing(streamed=False)
    assert (timing.ttft_any_us, timing.ttft_output_us, timing.chunks) == (None, None, 0)
    assert timing.latency_us == timing.queue_us == 200_000
    assert watch.since_leaving_us() == 0
