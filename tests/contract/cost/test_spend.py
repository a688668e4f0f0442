"""What was spent, on both databases."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Connection

from services.cost.periods import QUARTER_US
from services.cost.spend import DAY_US, EVERYTHING, SpendFilter, Window
from services.cost.store.spend import series_of, spent_in
from services.cost.usage import Attribution
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from tests.support.cost import HOUR_US, NOVEMBER_US, report
from tests.support.cost_store import bookkeeping

OpenDatabase = Callable[..., Awaitable[Database]]
PROJECT = "prj_1"


async def with_events(open_database: OpenDatabase) -> Database:
    """Ten events an hour apart, of 1 to 10 tokens, by two users, keys, runs and teams in turn."""
    database = await open_database("cost", migrations="services.cost.migrations", clock=ManualClock(NOVEMBER_US))
    books = bookkeeping(database)
    start_us = NOVEMBER_US // DAY_US * DAY_US - DAY_US
    reports = []
    for number in range(10):
        side = number % 2
        team = ("a", 'b","env":"c')[side]
        attribution = Attribution(f"usr_{side}", f"key_{side}", f"run_{side}", (("env", "x"), ("team", team)))
        at_us = start_us + number * HOUR_US
        reports.append(report(f"e{number}", tokens=number + 1, occurred_us=at_us, attribution=attribution))
    await books.report(PROJECT, reports)
    await books.report("prj_2", [report("e1", tokens=1_000, occurred_us=start_us)])
    await books.close()
    return database


@pytest.mark.parametrize(
    ("spend_filter", "tokens"),
    [
        (EVERYTHING, 55),
        (SpendFilter(user_id="usr_0"), 25),
        (SpendFilter(key_id="key_1", run_id="run_1"), 30),
        (SpendFilter(provider="acme", model="flat"), 55),
        (SpendFilter(model="free"), 0),
        (SpendFilter(tag="team=a"), 25),
        (SpendFilter(tag='team=b","env":"c'), 30),
        (SpendFilter(tag="env=c"), 0),
        (SpendFilter(tag="env=x", user_id="usr_1"), 30),
        (SpendFilter(tag="team=a", user_id="usr_1"), 0),
    ],
)
async def test_what_fits_a_filter_is_summed(
    open_database: OpenDatabase, spend_filter: SpendFilter, tokens: int
) -> None:
    database = await with_events(open_database)
    start_us = NOVEMBER_US // DAY_US * DAY_US - DAY_US

    def read(connection: Connection) -> tuple[int, list[int], list[int]]:
        whole = Window(start_us - DAY_US, start_us + DAY_US)
        hours = Window(start_us, start_us + 10 * HOUR_US)
        return (
            spent_in(connection, PROJECT, spend_filter, whole),
            series_of(connection, PROJECT, spend_filter, hours, HOUR_US),
            series_of(connection, PROJECT, spend_filter, whole, DAY_US),
        )

    total, by_hour, by_day = await database.read(read)
    assert total == sum(by_hour) == tokens * 1_000
    assert by_day == [0, tokens * 1_000]
    if tokens == 55:
        assert by_hour == [1_000 * (number + 1) for number in range(10)]


async def test_a_window_ends_before_its_end(open_database: OpenDatabase) -> None:
    database = await with_events(open_database)
    start_us = NOVEMBER_US // DAY_US * DAY_US - DAY_US

    def read(connection: Connection, first_us: int, end_us: int) -> int:
        return spent_in(connection, PROJECT, EVERYTHING, Window(first_us, end_us))

    assert await database.read(read, start_us + HOUR_US, start_us + 2 * HOUR_US) == 2_000
    assert await database.read(read, start_us + QUARTER_US, start_us + HOUR_US) == 0
