"""Log-in throttling: bursts, refill, bounded memory, and which peers are one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.throttle import AttemptLimiter, Rate, peer_key
from services.runtime.clock import ManualClock
from services.runtime.errors import ResourceExhausted


def limiter(clock: ManualClock, *, burst: int = 3, interval_s: float = 10, max_keys: int = 100) -> AttemptLimiter:
    return AttemptLimiter(Rate(burst, interval_s), max_keys=max_keys, clock=clock)


def test_the_burst_passes_and_the_next_is_told_when_to_come_back() -> None:
    clock = ManualClock()
    attempts = limiter(clock)
    for _ in range(3):
        attempts.take("ada")
    clock.advance(4)
    with pytest.raises(ResourceExhausted) as caught:
        attempts.take("ada")
    assert caught.value.reason == "LOGIN_THROTTLED"
    assert caught.value.retry_after_ms == 6000
    attempts.take("grace")
    clock.advance(6)
    attempts.take("ada")


def test_an_attempt_that_succeeded_does_not_count() -> None:
    attempts = limiter(ManualClock(), burst=1)
    for _ in range(10):
        attempts.take("ada")
        attempts.give_back("ada")
    assert len(attempts) == 0


def test_giving_back_what_was_never_taken_changes_nothing() -> None:
    attempts = limiter(ManualClock(), burst=1)
    attempts.give_back("ada")
    attempts.take("ada")
    with pytest.raises(ResourceExhausted):
        attempts.take("ada")


def test_memory_is_bounded_and_the_least_recent_key_is_forgotten() -> None:
    attempts = limiter(ManualClock(), burst=1, max_keys=2)
    for key in ("a", "b", "c"):
        attempts.take(key)
    assert len(attempts) == 2
    attempts.take("a")
    with pytest.raises(ResourceExhausted):
        attempts.take("c")


@given(
    waits_s=st.lists(st.integers(min_value=0, max_value=30), max_size=80),
    burst=st.integers(min_value=1, max_value=5),
    interval_s=st.integers(min_value=1, max_value=20),
)
def test_never_more_than_the_burst_and_the_refill(waits_s: list[int], burst: int, interval_s: int) -> None:
    clock = ManualClock()
    attempts = limiter(clock, burst=burst, interval_s=interval_s)
    passed = 0
    for wait_s in waits_s:
        clock.advance(wait_s)
        try:
            attempts.take("ada")
        except ResourceExhausted:
            continue
        passed += 1
        assert passed <= burst + clock.monotonic_s() / interval_s


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:192.0.2.7:50312", "192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:50312", "2001:db8:1:2::/64"),
        ("ipv6:%5B::1%5D:50312", "::/64"),
        ("unix:/tmp/socket", "unix"),
        ("", ""),
    ],
)
def test_a_peer_is_its_address_without_the_port(peer: str, key: str) -> None:
    assert peer_key(peer) == key
