"""What calls will cost: expected and at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.pricing.catalogue import Catalogue
from services.cost.pricing.estimates import AMOUNT_MAX_NANO_USD, Plan, estimate, priced, sum_nano_usd, tokens_of_bytes
from services.cost.pricing.estimates import InputLength as Length
from services.cost.usage import Usage
from services.runtime.errors import InvalidField, WrongState

NOW_US = 1_795_000_000_000_000
CATALOGUE = Catalogue.load()


def plan(
    model: str = "openai/gpt-4o",
    *,
    length: Length | None = None,
    expected: int = 100,
    most: int = 400,
    answers: int = 1,
    calls: int = 1,
    tier: str = "",
) -> Plan:
    provider, name = model.split("/", 1)
    return Plan(provider, name, tier, length or Length(1_000, 1_000), expected, most, answers, 0, calls)


def test_the_expected_cost_and_the_worst_case_of_many_calls() -> None:
    found = estimate(plan(calls=10, answers=2), CATALOGUE, NOW_US, "items[0]")
    # 2.50 USD for input, once a call; 10 USD for output, for each answer.
    assert found.expected.parts() == {"input": 10 * 2_500_000, "output": 10 * 200 * 10_000}
    assert (found.worst.input, found.worst.output) == (10 * 2_500_000, 10 * 800 * 10_000)
    assert (found.usage.output_tokens, found.version) == (200, CATALOGUE.version)


def test_a_batch_costs_half() -> None:
    standard, batch = (estimate(plan(tier=tier), CATALOGUE, NOW_US, "items[0]") for tier in ("", "batch"))
    assert 2 * batch.expected.total_nano_usd == standard.expected.total_nano_usd


@given(
    st.integers(0, 400_000), st.integers(0, 64_000), st.integers(0, 64_000), st.integers(1, 128), st.integers(1, 1_000)
)
def test_the_worst_case_covers_what_is_expected(size: int, first: int, second: int, answers: int, calls: int) -> None:
    wanted = plan(
        "anthropic/claude-sonnet-4-5",
        length=tokens_of_bytes(size),
        expected=min(first, second),
        most=max(first, second),
        answers=answers,
        calls=calls,
    )
    found = estimate(wanted, CATALOGUE, NOW_US, "items[0]")
    assert found.expected.total_nano_usd <= found.worst.total_nano_usd


def test_a_plan_without_a_price_is_refused() -> None:
    for wanted in (plan("nobody/nothing"), plan("openai/gpt-4o", tier="flex")):
        with pytest.raises(WrongState, match="has no price") as refused:
            estimate(wanted, CATALOGUE, NOW_US, "items[0]")
        assert refused.value.reason == "UNPRICED"


def test_more_expected_than_the_limit_is_refused() -> None:
    with pytest.raises(InvalidField) as refused:
        estimate(plan(expected=401), CATALOGUE, NOW_US, "items[3]")
    assert refused.value.field == "items[3].expected_output_tokens"


def test_a_sum_beyond_64_bits_is_refused() -> None:
    assert sum_nano_usd([AMOUNT_MAX_NANO_USD - 1, 1]) == AMOUNT_MAX_NANO_USD
    with pytest.raises(InvalidField):
        sum_nano_usd([AMOUNT_MAX_NANO_USD, 1])


def test_usage_without_a_price_is_unpriced_and_not_free() -> None:
    cost, breakdown = priced(None, Usage(input_tokens=5))
    assert not cost.priced
    assert breakdown.total_nano_usd == 0
