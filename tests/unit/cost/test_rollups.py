from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.cost.periods import FOREVER_US, QUARTER_US
from services.cost.rollups import (
    ALL_GRAINS,
    DAY_US,
    HOUR_US,
    VIEWS,
    Bucket,
    Grain,
    block_parts_of,
    closing_time,
    parts_of,
    view_of,
)

START_US = 20_000 * DAY_US
times = st.integers(0, 100 * 96).map(lambda quarter: START_US + quarter * QUARTER_US)


@given(times, times, times, times, st.integers(1, 4))
def test_parts_cover_every_quarter_hour_of_a_window_once(
    start_us: int, end_us: int, closed_us: int, now_us: int, grains: int
) -> None:
    """Whatever is added and taken out again, a moment counts 1 inside the window and 0 outside of it."""
    start_us, end_us = sorted((start_us, end_us))
    kept = ALL_GRAINS[:grains]
    parts = parts_of(start_us, end_us, kept, closed_us=closed_us, now_us=now_us)
    counted: dict[int, int] = {}
    stretches = [(one.start_us, one.start_us + one.grain.width_us, one.sign) for one in parts.buckets]
    stretches += [(one.start_us, one.end_us, one.sign) for one in parts.spans]
    for from_us, before_us, sign in stretches:
        for at_us in range(from_us, before_us, QUARTER_US):
            counted[at_us] = counted.get(at_us, 0) + sign
    assert {at_us for at_us, count in counted.items() if count} == set(range(start_us, end_us, QUARTER_US))
    assert set(counted.values()) <= {0, 1}
    wider = [bucket for bucket in parts.buckets if bucket.grain is not kept[-1]]
    assert all(bucket.start_us + bucket.grain.width_us <= closed_us for bucket in wider)


@given(times, times, times)
def test_blocks_and_spans_cover_a_window_that_is_packed(start_us: int, end_us: int, packed_us: int) -> None:
    packed_us -= packed_us % HOUR_US
    start_us, end_us = sorted((min(start_us, packed_us), min(end_us, packed_us)))
    parts = block_parts_of(start_us, end_us, packed_us)
    counted: Counter[int] = Counter()
    stretches = [(one.start_us, one.start_us + one.grain.width_us, one.sign) for one in parts.buckets]
    stretches += [(one.start_us, one.end_us, one.sign) for one in parts.spans]
    for from_us, before_us, sign in stretches:
        counted.update(dict.fromkeys(range(from_us, before_us, QUARTER_US), sign))
    assert {at_us for at_us, count in counted.items() if count} == set(range(start_us, end_us, QUARTER_US))
    assert all(bucket.start_us + bucket.grain.width_us <= packed_us for bucket in parts.buckets)
    assert all(one.end_us - one.start_us < HOUR_US for one in parts.spans)


@given(times, times)
def test_a_window_needs_few_parts(start_us: int, end_us: int) -> None:
    start_us, end_us = sorted((start_us, end_us))
    parts = parts_of(start_us, end_us, ALL_GRAINS, closed_us=FOREVER_US, now_us=FOREVER_US)
    assert not parts.spans
    assert len(parts.buckets) <= (end_us - start_us) // (8 * DAY_US) + 2 * (1 + 4 + 12 + 2)


def test_a_day_in_berlin_is_a_day_of_utc_and_two_hours() -> None:
    parts = parts_of(
        START_US - HOUR_US, START_US + DAY_US - HOUR_US, ALL_GRAINS[1:], closed_us=FOREVER_US, now_us=FOREVER_US
    )
    assert parts.buckets == [
        Bucket(Grain.DAY, START_US, 1),
        Bucket(Grain.HOUR, START_US - HOUR_US, 1),
        Bucket(Grain.HOUR, START_US + DAY_US - HOUR_US, -1),
    ]


def test_a_bucket_that_is_not_over_is_rounded_up() -> None:
    now_us = START_US + 2 * HOUR_US
    parts = parts_of(START_US, now_us, (Grain.DAY,), closed_us=0, now_us=now_us)
    assert [bucket.sign for bucket in parts.buckets] == [1]
    assert [(span.start_us, span.end_us, span.sign) for span in parts.spans] == [(now_us, START_US + DAY_US, -1)]


def test_the_cheapest_view_is_taken() -> None:
    assert [view.name for view in map(view_of, [(), ("model",), ("tag", "model"), ("user_id",)]) if view] == [
        "total",
        "by_model",
        "by_tag_model",
        "by_user",
    ]
    assert view_of(("user_id", "key_id")) is None
    assert len({view.name for view in VIEWS}) == len(VIEWS)


def test_buckets_are_made_when_they_and_the_events_of_their_time_are_over() -> None:
    now_us = START_US + 7 * HOUR_US + QUARTER_US
    assert closing_time(now_us, now_us) == START_US + 6 * HOUR_US
    assert closing_time(now_us + HOUR_US, now_us) == START_US + 6 * HOUR_US
    assert closing_time(START_US, now_us) == START_US - HOUR_US
    assert closing_time(0, now_us) == 0
