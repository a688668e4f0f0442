import pytest

from services.cost.periods import PeriodKind
from services.cost.scopes import Scope, Target
from services.cost.standings import Standings
from services.cost.usage import Attribution
from tests.support.cost import HOUR_US, NOVEMBER_US, budget

CALL = Target("acme", "flat", Attribution("usr_1"))


def test_balances_are_found_by_budget_id_and_open_once() -> None:
    budgets = [
        budget(1, budget_id="bud_2"),
        budget(1, budget_id="bud_1", scope=Scope(user_id="usr_1"), kind=PeriodKind.DAILY),
        budget(1, budget_id="bud_3", scope=Scope(user_id="usr_2")),
    ]
    standings = Standings.of(budgets)
    found = standings.at(CALL, NOVEMBER_US)
    assert [(one.budget.budget_id, one.period.key) for one in found] == [("bud_1", "2026-11-18"), ("bud_2", "2026-11")]
    later = standings.at(CALL, NOVEMBER_US + 24 * HOUR_US)
    assert [one.period.key for one in later] == ["2026-11-19", "2026-11"]
    assert later[1] is found[1]
    assert len(list(standings)) == 3


def test_a_budget_has_no_balance_in_periods_that_had_ended_before_it() -> None:
    standings = Standings.of([budget(1)])
    assert standings.at(CALL, NOVEMBER_US - 31 * 24 * HOUR_US) == ()
    assert len(standings.at(CALL, NOVEMBER_US - 17 * 24 * HOUR_US)) == 1


def test_what_was_not_loaded_is_an_error_and_never_an_empty_balance() -> None:
    standings = Standings.of([budget(1)])
    (balance,) = standings.at(CALL, NOVEMBER_US)
    standings.fill(("bud_1", "2026-11"), settled_nano_usd=5, held_nano_usd=7)
    standings.fill(("bud_1", "2026-12"), settled_nano_usd=5, held_nano_usd=7)
    standings.seal()
    assert standings["bud_1", "2026-11"] is balance
    assert (balance.settled_nano_usd, balance.held_nano_usd) == (5, 7)
    with pytest.raises(KeyError):
        standings.at(CALL, NOVEMBER_US + 31 * 24 * HOUR_US)
