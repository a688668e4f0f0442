import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.events import UsageEvent
from services.cost.ledger import Books, Ledger
from services.cost.periods import QUARTER_US
from services.cost.spend import (
    DAY_US,
    WINDOW_DEFAULT_US,
    Dimension,
    Window,
    check_groups,
    deltas_of,
    window_of,
)
from services.cost.usage import Attribution
from services.runtime.errors import InvalidField
from tests.support.cost import NOVEMBER_US, PriceList, report

quarters = st.integers(0, 400)


def events(*times_us: int, model: str = "flat", tags: tuple[tuple[str, str], ...] = ()) -> list[UsageEvent]:
    ledger = Ledger(Books("prj_1"), PriceList(), NOVEMBER_US)
    attribution = Attribution(tags=tags)
    ledger.report(
        [
            report(f"{model}-{number}", tokens=number + 1, model=model, occurred_us=at_us, attribution=attribution)
            for number, at_us in enumerate(times_us)
        ]
    )
    return ledger.new_events


@given(quarters, quarters, st.lists(quarters, max_size=30))
def test_a_window_covers_each_of_its_quarter_hours_once(start: int, length: int, at: list[int]) -> None:
    base_us = NOVEMBER_US // DAY_US * DAY_US - 3 * DAY_US
    window = Window(base_us + start * QUARTER_US, base_us + (start + length) * QUARTER_US)
    deltas = deltas_of(events(*[base_us + quarter * QUARTER_US for quarter in at if quarter < 280]))
    summed = sum(
        sums.calls
        for (grain, bucket_us, _, _), sums in deltas.models
        for span_grain, from_us, before_us in window.spans()
        if grain is span_grain and from_us <= bucket_us < before_us
    )
    assert summed == sum(1 for quarter in at if quarter < 280 and start <= quarter < start + length)


def test_spans_are_days_between_quarter_hours() -> None:
    day_us = NOVEMBER_US // DAY_US * DAY_US
    spans = Window(day_us - QUARTER_US, day_us + 2 * DAY_US + QUARTER_US).spans()
    assert [(grain.value, end - start) for grain, start, end in spans] == [
        ("d", 2 * DAY_US),
        ("q", QUARTER_US),
        ("q", QUARTER_US),
    ]
    assert Window(day_us, day_us).spans() == []


def test_deltas_are_sorted_and_count_every_tag_in_full() -> None:
    tagged = events(NOVEMBER_US, NOVEMBER_US - DAY_US, tags=(("team", "a"), ("env", "x")))
    deltas = deltas_of([*events(NOVEMBER_US, model="secret"), *tagged])
    assert [key for key, _ in deltas.models] == sorted(key for key, _ in deltas.models)
    assert [key for key, _ in deltas.tags] == sorted(key for key, _ in deltas.tags)
    days = {key[2]: sums for key, sums in deltas.tags if key[0] == "d" and key[1] == NOVEMBER_US // DAY_US * DAY_US}
    assert {tag: (sums.calls, sums.cost_nano_usd) for tag, sums in days.items()} == {
        "env=x": (1, 1_000),
        "team=a": (1, 1_000),
    }
    unpriced = [sums for (grain, _, _, model), sums in deltas.models if grain == "d" and model == "secret"]
    assert [(sums.calls, sums.unpriced_calls, sums.cost_nano_usd) for sums in unpriced] == [(1, 1, 0)]


def test_a_window_defaults_to_thirty_days_and_widens_to_quarter_hours() -> None:
    window = window_of(None, None, NOVEMBER_US)
    assert window.start_us % QUARTER_US == window.end_us % QUARTER_US == 0
    assert window.start_us <= NOVEMBER_US - WINDOW_DEFAULT_US < NOVEMBER_US <= window.end_us
    assert window_of(1, 2, NOVEMBER_US) == Window(0, QUARTER_US)


@pytest.mark.parametrize(("start_us", "end_us"), [(5, 5), (6, 5), (0, 400_000 * DAY_US)])
def test_an_empty_or_endless_window_is_refused(start_us: int, end_us: int) -> None:
    with pytest.raises(InvalidField) as refused:
        window_of(start_us, end_us, NOVEMBER_US)
    assert refused.value.field == "start_time"


@pytest.mark.parametrize(
    "group_by", [(Dimension.DAY, Dimension.DAY), (Dimension.TAG, Dimension.MODEL), (Dimension.PROVIDER, Dimension.TAG)]
)
def test_groupings_that_cannot_be_are_refused(group_by: tuple[Dimension, ...]) -> None:
    with pytest.raises(InvalidField) as refused:
        check_groups(group_by)
    assert refused.value.field == "group_by"


def test_groupings_that_can_be() -> None:
    for group_by in ((), (Dimension.TAG, Dimension.DAY), (Dimension.DAY, Dimension.PROVIDER, Dimension.MODEL)):
        assert check_groups(group_by) == group_by
