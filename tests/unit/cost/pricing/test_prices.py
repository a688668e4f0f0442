import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.pricing.prices import (
    DAY_US,
    DatedTariff,
    ModelPrice,
    Rates,
    Tariff,
    Tier,
    price,
    worst_case,
)
from services.cost.usage import Usage, check_usage
from services.runtime.errors import InvalidField

USD_PER_MTOK = 1_000_000_000
HOUR_US = 3_600_000_000


def rates(**changes: int) -> Rates:
    plain = {
        "input": 3 * USD_PER_MTOK,
        "cache_read": 300_000_000,
        "cache_write_5m": 3_750_000_000,
        "cache_write_1h": 6 * USD_PER_MTOK,
        "input_audio": 10 * USD_PER_MTOK,
        "output": 15 * USD_PER_MTOK,
        "reasoning": 15 * USD_PER_MTOK,
        "output_audio": 40 * USD_PER_MTOK,
    }
    return Rates(**(plain | changes))


rate = st.integers(0, 200 * USD_PER_MTOK)
all_rates = st.builds(Rates, *[rate] * 8)
part = st.integers(0, 2_000_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, write_5m, write_1h, audio, reasoning, output_audio = [draw(part) for _ in range(6)]
    return Usage(
        input_tokens=read + write_5m + write_1h + audio + draw(part),
        cache_read_tokens=read,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        input_audio_tokens=audio,
        output_tokens=reasoning + output_audio + draw(part),
        reasoning_tokens=reasoning,
        output_audio_tokens=output_audio,
        steps=draw(st.integers(0, 100)),
    )


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    starts = [0, *sorted(draw(st.sets(st.integers(1, 4_000_000), max_size=3)))]
    return Tariff(
        tuple(Tier(start, draw(all_rates)) for start in starts),
        draw(st.integers(0, 10**9)),
        draw(st.integers(0, 10**9)),
    )


def test_each_kind_of_token_is_priced_once_at_its_own_rate() -> None:
    usage = Usage(
        input_tokens=1_000,
        cache_read_tokens=400,
        cache_write_5m_tokens=100,
        cache_write_1h_tokens=50,
        input_audio_tokens=50,
        output_tokens=300,
        reasoning_tokens=200,
        output_audio_tokens=10,
    )
    parts = price(usage, Tariff((Tier(0, rates()),), request_nano_usd=7))
    assert (parts.input, parts.cache_read, parts.cache_write_5m) == (400 * 3_000, 400 * 300, 100 * 3_750)
    assert (parts.cache_write_1h, parts.input_audio) == (50 * 6_000, 50 * 10_000)
    assert (parts.output, parts.reasoning, parts.output_audio) == (90 * 15_000, 200 * 15_000, 10 * 40_000)
    assert parts.request == 7
    assert parts.total_nano_usd == 7_245_007


def test_a_tier_prices_every_token_of_the_call() -> None:
    tariff = Tariff((Tier(0, rates(input=1_000_000)), Tier(200_001, rates(input=2_000_000))))
    assert price(Usage(input_tokens=200_000), tariff).input == 200_000
    assert price(Usage(input_tokens=200_001), tariff).input == 400_002


@pytest.mark.parametrize(("tenths", "rounded"), [(5, 0), (15, 2), (25, 2), (26, 3), (24, 2), (0, 0)])
def test_ties_go_to_the_even_neighbour(tenths: int, rounded: int) -> None:
    tariff = Tariff((Tier(0, rates(input=tenths * 100_000)),))
    assert price(Usage(input_tokens=1), tariff).input == rounded


@given(usages(), tariffs())
def test_parts_are_never_negative_and_the_worst_case_covers_every_split(usage: Usage, tariff: Tariff) -> None:
    check_usage(usage, "usage")
    parts = price(usage, tariff)
    assert min(parts.input, parts.output) >= 0
    assert parts.total_nano_usd == sum(parts.parts().values()) == sum(parts)
    worst = worst_case(usage.input_tokens, usage.output_tokens, tariff, usage.steps)
    assert parts.total_nano_usd <= worst.total_nano_usd


@given(usages(), tariffs(), part, part)
def test_the_worst_case_grows_with_its_limits(usage: Usage, tariff: Tariff, more_in: int, more_out: int) -> None:
    limits = usage.input_tokens + more_in, usage.output_tokens + more_out
    assert price(usage, tariff).total_nano_usd <= worst_case(*limits, tariff, usage.steps).total_nano_usd


def test_a_free_model_holds_nothing() -> None:
    assert worst_case(10**6, 10**6, Tariff((Tier(0, Rates(0, 0, 0, 0, 0, 0, 0, 0)),))).total_nano_usd == 0


def test_steps_and_requests_cost_their_fees() -> None:
    tariff = Tariff((Tier(0, Rates(0, 0, 0, 0, 0, 0, 0, 0)),), request_nano_usd=5, step_nano_usd=16_000_000)
    assert price(Usage(steps=7), tariff).parts() == {"request": 5, "steps": 112_000_000}
    assert worst_case(0, 0, tariff, steps_max=10).fees == 160_000_005


def test_the_worst_case_knows_a_dearer_lower_tier() -> None:
    tariff = Tariff((Tier(0, rates(input_audio=9 * USD_PER_MTOK)), Tier(100, rates(input_audio=0, cache_write_1h=0))))
    assert worst_case(1_000_000, 0, tariff).input >= 9 * USD_PER_MTOK


def test_the_tariff_in_force_is_the_last_that_holds() -> None:
    old, new, night = (Tariff((Tier(0, rates(input=value)),)) for value in (1, 2, 3))
    start_us = 20_000 * DAY_US
    model = ModelPrice(
        "p",
        "m",
        "v",
        (
            DatedTariff(old),
            DatedTariff(new, starts_us=start_us),
            DatedTariff(night, daily_us=(22 * HOUR_US, 6 * HOUR_US)),
        ),
    )
    noon_us = start_us + 12 * HOUR_US
    assert model.at(noon_us - DAY_US) is old
    assert model.at(start_us + 6 * HOUR_US) is new
    assert model.at(noon_us) is new
    assert model.at(start_us + 22 * HOUR_US) is night
    assert model.at(start_us) is night


def test_a_service_tier_is_never_taken_for_the_standard_one() -> None:
    standard, batch = (Tariff((Tier(0, rates(input=value)),)) for value in (2, 1))
    model = ModelPrice("p", "m", "v", (DatedTariff(standard),), {"batch": (DatedTariff(batch, starts_us=DAY_US),)})
    assert model.at(DAY_US, "batch") is batch
    assert model.at(DAY_US - 1, "batch") is None
    assert model.at(DAY_US, "priority") is None
    assert model.at(0) is standard


def test_a_day_window_that_does_not_span_midnight() -> None:
    dated = DatedTariff(Tariff((Tier(0, rates()),)), daily_us=(6 * HOUR_US, 22 * HOUR_US))
    assert [dated.holds_at(hour * HOUR_US) for hour in (5, 6, 21, 22)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("usage", "field"),
    [
        (Usage(input_tokens=-1), "usage.input_tokens"),
        (Usage(output_tokens=10**12), "usage.output_tokens"),
        (Usage(input_tokens=10, reasoning_tokens=-5), "usage.reasoning_tokens"),
        (Usage(input_tokens=10, cache_read_tokens=6, cache_write_5m_tokens=5), "usage.input_tokens"),
        (Usage(output_tokens=10, reasoning_tokens=11), "usage.output_tokens"),
    ],
)
def test_impossible_counts_are_refused_by_name(usage: Usage, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_usage(usage, "usage")
    assert refused.value.field == field
