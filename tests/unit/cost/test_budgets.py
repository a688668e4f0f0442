import pytest

from services.cost.budgets import (
    LIMIT_MAX_NANO_USD,
    UPDATABLE_FIELDS,
    Balance,
    check_limit,
    check_mask,
    check_name,
    check_thresholds,
    usd,
)
from services.runtime.errors import InvalidField
from tests.support.cost import NOVEMBER_US, budget


def test_what_remains_is_never_negative() -> None:
    owner = budget(100)
    balance = Balance(owner, owner.period_at(NOVEMBER_US), settled_nano_usd=70, held_nano_usd=20)
    assert (balance.remaining_nano_usd, balance.admits(10), balance.admits(11)) == (10, True, False)
    balance.settled_nano_usd = 200
    assert (balance.remaining_nano_usd, balance.admits(0), balance.admits(1)) == (0, True, False)


@pytest.mark.parametrize("limit", [0, -1, LIMIT_MAX_NANO_USD + 1])
def test_limits_out_of_range_are_refused(limit: int) -> None:
    with pytest.raises(InvalidField) as refused:
        check_limit(limit, "budget.limit_nano_usd")
    assert refused.value.field == "budget.limit_nano_usd"
    assert check_limit(1, "f") == 1
    assert check_limit(LIMIT_MAX_NANO_USD, "f") == LIMIT_MAX_NANO_USD


def test_a_soft_budget_admits_everything() -> None:
    owner = budget(100, soft=True)
    balance = Balance(owner, owner.period_at(NOVEMBER_US), settled_nano_usd=170)
    assert (balance.remaining_nano_usd, balance.admits(10**9)) == (0, True)


@pytest.mark.parametrize("percents", [[0], [1_001], [50, 50], [-1], list(range(1, 12))])
def test_thresholds_are_few_distinct_percentages(percents: list[int]) -> None:
    with pytest.raises(InvalidField) as refused:
        check_thresholds(percents, "budget.thresholds_percent")
    assert refused.value.field == "budget.thresholds_percent"
    assert check_thresholds([], "f") == (50, 80, 100)
    assert check_thresholds([1_000, 1, 90], "f") == (1, 90, 1_000)


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_names_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(InvalidField):
        check_name(name, "budget.name")
    assert check_name("x" * 100, "budget.name") == "x" * 100


def test_a_mask_names_fields_that_can_change() -> None:
    assert check_mask(("limit_nano_usd", "name"), "update_mask") == ("limit_nano_usd", "name")
    assert check_mask(UPDATABLE_FIELDS, "update_mask") == UPDATABLE_FIELDS
    for paths in ((), ("time_zone",), ("period",), ("name", "budget_id")):
        with pytest.raises(InvalidField) as refused:
            check_mask(paths, "update_mask")
        assert refused.value.field == "update_mask"


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0 USD"),
        (1, "0.000000001 USD"),
        (12_500_000, "0.0125 USD"),
        (10**15, "1,000,000 USD"),
        (-5 * 10**9, "-5 USD"),
    ],
)
def test_amounts_are_written_exactly(nano_usd: int, text: str) -> None:
    assert usd(nano_usd) == text
