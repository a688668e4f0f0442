"""Amounts of money, read and written."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import budget_pb2
from llmlab.cli import money

LIMIT = money.amount_of(budget_pb2.Budget.DESCRIPTOR, "limit_nano_usd")


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "$0"),
        (1, "$0.000000001"),
        (31_000, "$0.000031"),
        (432_161, "$0.00043"),
        (41_200_000, "$0.0412"),
        (12_345_000_000, "$12.35"),
        (1_234_567_000_000_000, "$1,234,567.00"),
        (-3_000_000_000, "-$3.00"),
    ],
)
def test_dollars(nano_usd: int, text: str) -> None:
    assert money.dollars(nano_usd) == text


def test_an_unpriced_cost_is_never_zero() -> None:
    assert money.cost(usage_pb2.Cost(unpriced_calls=1)) == "unpriced"
    assert money.cost(usage_pb2.Cost(unpriced_calls=1, cost_nano_usd=10**9)) == ">= $1.00"
    assert money.cost(usage_pb2.Cost(cost_nano_usd=10**9)) == "$1.00"


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("10usd", 10_000_000_000),
        ("10 USD", 10_000_000_000),
        ("$0.5", 500_000_000),
        ("1_000", 1_000_000_000_000),
        ("0.000000001", 1),
        ("-1", -1_000_000_000),
    ],
)
def test_amounts_are_read_exactly(text: str, nano_usd: int) -> None:
    assert money.nano_usd_of(text) == nano_usd


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "10usd"),
        ("ten", "10usd"),
        ("10eur", "10usd"),
        ("inf", "10usd"),
        ("nan", "10usd"),
        ("1,5", "10usd"),
        ("0.0000000001", "more than 9 decimals"),
        ("1e-999999", "more than 9 decimals"),
        ("1.00000000000000000000000000000000001", "more than 9 decimals"),
        ("1e30", "more than can be counted"),
        ("1e999999", "more than can be counted"),
    ],
)
def test_what_is_no_amount_is_refused(text: str, why: str) -> None:
    with pytest.raises(typer.BadParameter, match=why):
        money.nano_usd_of(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [("0", "more than 0"), ("-5", "more than 0"), ("1000000.01", "at most 1,000,000 USD")],
)
def test_amounts_stay_within_what_the_contract_allows(text: str, why: str) -> None:
    with pytest.raises(typer.BadParameter, match=why):
        LIMIT(text)
    assert LIMIT("1000000") == 10**15


@given(st.integers(0, 10**21))
def test_an_exact_amount_is_read_as_it_was_written(nano_usd: int) -> None:
    assert money.nano_usd_of(money.exact_usd(nano_usd).replace(",", "")) == nano_usd
