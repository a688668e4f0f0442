import time

import pytest

from services.runtime.clock import SYSTEM_CLOCK, ManualClock


def test_the_system_clock_is_the_machines() -> None:
    before_us = time.time_ns() // 1_000
    assert before_us <= SYSTEM_CLOCK.now_us() <= time.time_ns() // 1_000
    assert SYSTEM_CLOCK.monotonic_s() <= SYSTEM_CLOCK.monotonic_s()


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(now_us=1_000_000)
    assert (clock.now_us(), clock.monotonic_s()) == (1_000_000, 0)
    clock.advance(1.5)
    assert (clock.now_us(), clock.monotonic_s()) == (2_500_000, 1.5)


def test_turning_the_wall_clock_back_leaves_monotonic_time_alone() -> None:
    clock = ManualClock(now_us=1_000_000)
    clock.advance(1)
    clock.set_now_us(5)
    assert (clock.now_us(), clock.monotonic_s()) == (5, 1)


def test_a_manual_clock_never_goes_back() -> None:
    with pytest.raises(ValueError, match="cannot advance"):
        ManualClock().advance(-1)
