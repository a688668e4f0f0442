"""What was spent, on both databases: views, tail and events give what a scan of the events gives, for any question."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Connection, delete, func, select, update

from services.cost.bookkeeping import Bookkeeping
from services.cost.events import UsageReport
from services.cost.periods import FOREVER_US, QUARTER_US, period_at
from services.cost.rollups import DAY_US, HOUR_US, VIEWS
from services.cost.spend import (
    EVERYTHING,
    Dimension,
    Order,
    SpendFilter,
    SpendQuery,
    SpendRow,
    SpendSummary,
    TagShare,
)
from services.cost.store import block_reader, block_writer
from services.cost.store import events as event_store
from services.cost.store.block_writer import Packer
from services.cost.store.rollups import Folder
from services.cost.store.spend import SpendStore, series_of, spent_in
from services.cost.store.tables import projects, spend_blocks, spend_progress, spend_views, usage_events
from services.cost.usage import Attribution
from services.cost.windows import AskedWindow, Window
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import InvalidField, ResourceExhausted
from tests.support.cost import NOVEMBER_US, report
from tests.support.cost_store import bookkeeping

OpenDatabase = Callable[..., Awaitable[Database]]
PROJECT = "prj_1"
Figures = dict[tuple[str, ...], tuple[int, int, int]]
"""Calls, cost and output tokens by the keys of groups."""
FIRST_US = NOVEMBER_US // DAY_US * DAY_US - 40 * DAY_US
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati")


@dataclass
class Spend:
    """Some hundred events of a project in the database and in memory; a part of them is folded."""

    database: Database
    books: Bookkeeping
    store: SpendStore
    folder: Folder
    packer: Packer
    clock: ManualClock
    reports: list[UsageReport]

    async def record(self, *reports: UsageReport) -> None:
        self.reports += reports
        await self.books.report(PROJECT, reports)

    async def fold(self, *, pack: bool = True) -> None:
        while await self.folder.fold(PROJECT):
            pass
        while pack and await self.packer.pack(PROJECT):
            pass

    async def pack_anew(self) -> None:
        def forget(connection: Connection) -> None:
            connection.execute(delete(spend_blocks))
            connection.execute(update(spend_progress).values(packed_us=0))

        await self.database.write(forget)
        await self.fold()

    async def ask(self, **question: object) -> SpendSummary:
        return await self.store.summarize(PROJECT, SpendQuery(**{"asked": AskedWindow(), **question}))  # type: ignore[arg-type]

    async def pages(self, query: SpendQuery) -> tuple[list[SpendRow], SpendSummary]:
        summary = await self.store.summarize(PROJECT, query)
        rows = list(summary.rows)
        while summary.more:
            query = replace(query, after=rows[-1].position)
            summary = await self.store.summarize(PROJECT, query)
            rows += summary.rows
        return rows, summary


@pytest.fixture
async def spend(open_database: OpenDatabase) -> "Spend":
    clock = ManualClock(NOVEMBER_US)
    database = await open_database("cost", migrations="services.cost.migrations", clock=clock)
    books = bookkeeping(database)
    store = SpendStore(database, max_events=10_000, timeout_ms=20_000)
    packer = Packer(database, min_events=1)
    return Spend(database, books, store, Folder(database, max_events=150), packer, clock, [])


def random_reports(count: int, chance: random.Random) -> list[UsageReport]:
    """Events of forty days, late ones among them, of few users, models and tags."""
    made = []
    for number in range(count):
        tags = {("team", chance.choice("ab=")), ("env", chance.choice(["x", 'y"', "z"]))}
        kept = tuple(sorted(tag for tag in tags if chance.random() < 0.6))
        attribution = Attribution(
            f"usr_{chance.randrange(4)}", f"key_{chance.randrange(3)}", chance.choice(["", "run_1"]), kept
        )
        at_us = chance.randrange(FIRST_US, NOVEMBER_US)
        model = chance.choice(["flat", "flat", "free", "secret"])
        made.append(
            report(
                f"e{number}", tokens=chance.randrange(1, 99), model=model, occurred_us=at_us, attribution=attribution
            )
        )
    return made


def in_filter(one: UsageReport, spend_filter: SpendFilter) -> bool:
    attribution = one.attribution
    tags = {f"{name}={value}" for name, value in attribution.tags}
    have = {
        "provider": one.provider,
        "model": one.model,
        "user_id": attribution.user_id,
        "key_id": attribution.key_id,
        "run_id": attribution.run_id,
    }
    wanted = spend_filter.conditions()
    tag = wanted.pop("tag", "")
    return all(have[name] == value for name, value in wanted.items()) and (not tag or tag in tags)


def groups_of(one: UsageReport, query: SpendQuery, zone: str) -> dict[tuple[str, ...], int]:
    """The groups that an event belongs to, and its cost in each."""
    cost = one.usage.output_tokens * 1_000 if one.model == "flat" else 0
    tags = [f"{name}={value}" for name, value in one.attribution.tags] or [""]
    assert one.occurred_us is not None
    groups = {}
    for index, tag in enumerate(tags if Dimension.TAG in query.group_by else [""]):
        if Dimension.TAG in query.group_by and query.spend_filter.tag not in ("", tag):
            continue
        share = cost
        if query.tag_share is TagShare.SPLIT:
            share = cost // len(tags) + (cost % len(tags) if index == 0 else 0)
        values = {
            Dimension.PROJECT: PROJECT,
            Dimension.PROVIDER: one.provider,
            Dimension.MODEL: f"{one.provider}/{one.model}",
            Dimension.USER: one.attribution.user_id,
            Dimension.KEY: one.attribution.key_id,
            Dimension.RUN: one.attribution.run_id,
            Dimension.TAG: tag,
        }
        for dimension in query.group_by:
            if dimension.period:
                values[dimension] = period_at(one.occurred_us, dimension.period, zone).key
        groups[tuple(values[dimension] for dimension in query.group_by)] = share
    return groups


def expected(
    reports: list[UsageReport], query: SpendQuery, window: Window
) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Calls, cost and tokens of every group, by a scan."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in reports:
        assert one.occurred_us is not None
        if window.start_us <= one.occurred_us < window.end_us and in_filter(one, query.spend_filter):
            for key, cost in groups_of(one, query, query.asked.zone).items():
                found[key][0] += 1
                found[key][1] += cost
                found[key][2] += one.usage.output_tokens
    return {key: (calls, cost, tokens) for key, (calls, cost, tokens) in found.items()}


def shown(rows: list[SpendRow]) -> Figures:
    return {row.keys: (row.sums.calls, row.sums.cost_nano_usd, row.sums.counts[5]) for row in rows}


@pytest.mark.parametrize("packed", [False, True])
async def test_any_question_is_answered_as_a_scan_answers_it(spend: Spend, *, packed: bool) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    reports = random_reports(600, chance)
    for start in range(0, 600, 100):
        await spend.record(*reports[start : start + 100])
        if start < 400:
            await spend.fold(pack=packed)
    filters = [
        EVERYTHING,
        SpendFilter(user_id="usr_1"),
        SpendFilter(provider="acme", model="flat"),
        SpendFilter(tag="team=a"),
        SpendFilter(tag="team=="),
        SpendFilter(key_id="key_2", user_id="usr_0"),
        SpendFilter(run_id="run_1"),
    ]
    for _ in range(60):
        dimensions = tuple(chance.sample(list(Dimension), chance.randrange(1, 4)))
        if sum(1 for one in dimensions if one.period) > 1:
            continue
        start_us = chance.randrange(FIRST_US, NOVEMBER_US) // QUARTER_US * QUARTER_US
        end_us = start_us + chance.randrange(1, 20 * 96) * QUARTER_US
        query = SpendQuery(
            AskedWindow(start_us, end_us, zone=chance.choice(ZONES)),
            dimensions,
            chance.choice(filters),
            chance.choice(list(TagShare)) if Dimension.TAG in dimensions else TagShare.FULL,
            chance.choice(list(Order)),
            page_size=chance.choice([3, 1_000]),
        )
        rows, last = await spend.pages(query)
        wanted = expected(reports, query, Window(start_us, end_us))
        assert shown(rows) == wanted, f"seed {seed}: {query}"
        assert len(rows) == len(wanted), f"seed {seed}: {query}"
        order = [(-row.sums.cost_nano_usd if query.order is Order.COST else 0) for row in rows]
        assert order == sorted(order), f"seed {seed}: {query}"
        alone = expected(reports, replace(query, group_by=(), tag_share=TagShare.FULL), Window(start_us, end_us))
        calls, cost, tokens = alone.get((), (0, 0, 0))
        assert (last.total.calls, last.total.cost_nano_usd, last.total.counts[5]) == (calls, cost, tokens)
        if query.tag_share is TagShare.SPLIT and not query.spend_filter.tag:
            assert sum(row.sums.cost_nano_usd for row in rows) == cost


async def test_blocks_give_what_rows_give(spend: Spend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and comparisons, also while usage has come that the blocks do not have yet."""
    chance = random.Random(8)
    reports = [one for one in random_reports(1_000, chance) if (one.occurred_us or 0) > NOVEMBER_US - 5 * DAY_US]
    await spend.record(*reports[:80])
    questions = []
    for dimensions in [(Dimension.USER, Dimension.MODEL), (Dimension.TAG, Dimension.USER), (Dimension.USER,)]:
        for order in Order:
            for spend_filter in (EVERYTHING, SpendFilter(provider="acme"), SpendFilter(user_id="usr_2")):
                start_us = NOVEMBER_US - chance.randrange(2 * DAY_US, 4 * DAY_US)
                asked = AskedWindow(start_us, start_us + 2 * DAY_US)
                questions.append(SpendQuery(asked, dimensions, spend_filter, order=order, compare=True, page_size=5))
    answers = [await spend.pages(query) for query in questions]

    async def packed() -> int:
        def count(connection: Connection) -> int:
            return int(connection.execute(select(func.count()).select_from(spend_blocks)).scalar_one())

        return await spend.database.read(count)

    await spend.fold()
    assert await packed() > 100
    assert [await spend.pages(query) for query in questions] == answers
    await spend.record(*reports[80:])
    late = [await spend.pages(query) for query in questions]
    assert late != answers
    await spend.fold(pack=False)
    assert [await spend.pages(query) for query in questions] == late
    assert await spend.packer.unpacked(10) == [PROJECT]
    await spend.fold()
    assert await spend.packer.unpacked(10) == []
    assert [await spend.pages(query) for query in questions] == late
    for name, limit in (("CELLS_MAX", 1), ("EVENTS_MAX", 0), ("BYTES_MAX", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(block_reader, name, limit)
            assert [await spend.pages(query) for query in questions] == late
    for name, limit in (("GROUPS_MAX", 3), ("HOUR_EVENTS_MAX", 0), ("_EVENTS_AT_ONCE", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(block_writer, name, limit)
            await spend.pack_anew()
            assert [await spend.pages(query) for query in questions] == late


async def test_folding_changes_no_answer(spend: Spend) -> None:
    reports = random_reports(400, random.Random(5))
    await spend.record(*reports)
    query = SpendQuery(AskedWindow(FIRST_US, NOVEMBER_US, zone="Asia/Kathmandu"), (Dimension.DAY, Dimension.TAG))
    before = await spend.pages(query)
    while await spend.folder.fold(PROJECT):
        assert await spend.pages(query) == before
    assert await spend.folder.behind(10) == []


async def test_a_tail_that_grows_too_long_is_folded_by_who_adds_to_it(
    spend: Spend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_store, "TAIL_EVENTS_MAX", 50)
    monkeypatch.setattr(event_store, "LOOK_EVERY", 20)
    for number in range(10):
        await spend.record(*[report(f"e{number}-{index}") for index in range(20)])

    def tail(connection: Connection) -> int:
        last = connection.execute(select(projects.c.event_sequence)).scalar_one()
        return int(last - connection.execute(select(spend_progress.c.folded_sequence)).scalar_one())

    assert await spend.database.read(tail) <= 50
    assert (await spend.ask()).total.calls == 200


async def test_views_hold_every_event_once_in_each_grain(spend: Spend) -> None:
    """Buckets of the finest grain hold all events; those of the others all that are before their last border."""
    reports = random_reports(600, random.Random(3))
    spend.clock.set_now_us(NOVEMBER_US - 20 * DAY_US)
    await spend.record(*[one for one in reports[:500] if (one.occurred_us or 0) < spend.clock.now_us()])
    while await spend.folder.fold(PROJECT):
        pass
    spend.clock.set_now_us(NOVEMBER_US)
    await spend.record(*[one for one in reports if one not in spend.reports])
    await asyncio.gather(*[spend.folder.fold(PROJECT) for _ in range(4)])
    while await spend.folder.fold(PROJECT):
        pass

    def sums(connection: Connection) -> None:
        closed_us = int(connection.execute(select(spend_progress.c.closed_us)).scalar_one())
        assert NOVEMBER_US - 3 * HOUR_US < closed_us < NOVEMBER_US
        total = select(func.sum(usage_events.c.cost_nano_usd))
        for view in VIEWS:
            table = spend_views[view.name]
            cost = table.c.split_nano_usd if "tag" in table.c else table.c.cost_nano_usd
            for grain in view.grains:
                until_us = FOREVER_US if grain is view.grains[-1] else closed_us - closed_us % grain.width_us
                found = connection.execute(select(func.sum(cost)).where(table.c.grain == grain.value)).scalar_one()
                wanted = connection.execute(total.where(usage_events.c.occurred_us < until_us)).scalar_one()
                assert found == wanted, (view.name, grain)

    await spend.database.read(sums)


async def test_a_comparison_has_what_was_before(spend: Spend) -> None:
    day_us = NOVEMBER_US // DAY_US * DAY_US
    for number, (days_ago, model) in enumerate([(0, "flat"), (31, "flat"), (31, "free"), (70, "flat")]):
        await spend.record(report(f"e{number}", tokens=number + 1, model=model, occurred_us=day_us - days_ago * DAY_US))
    month = await spend.ask(asked=AskedWindow(period="2026-11"), group_by=(Dimension.MODEL,), compare=True)
    assert [(row.keys, row.sums.cost_nano_usd, row.before and row.before.cost_nano_usd) for row in month.rows] == [
        (("acme/flat",), 1_000, 2_000),
        (("acme/free",), 0, 0),
    ]
    assert month.before is not None
    assert (month.total.calls, month.before.calls, month.before.cost_nano_usd) == (1, 2, 2_000)
    rolling = await spend.ask(asked=AskedWindow(rolling_us=30 * DAY_US), compare=True)
    assert rolling.window_before == Window(rolling.window.start_us - 30 * DAY_US - QUARTER_US, rolling.window.start_us)
    with pytest.raises(InvalidField, match="day, week, month"):
        await spend.ask(group_by=(Dimension.DAY,), compare=True)


async def test_an_unknown_mix_is_added_up_from_few_events_only(spend: Spend) -> None:
    await spend.record(*random_reports(60, random.Random(4)))
    mix = {"group_by": (Dimension.USER, Dimension.KEY), "asked": AskedWindow(rolling_us=41 * DAY_US)}
    assert sum(row.sums.calls for row in (await spend.ask(**mix)).rows) == 60
    few = SpendStore(spend.database, max_events=59, timeout_ms=20_000)
    with pytest.raises(ResourceExhausted) as refused:
        await few.summarize(PROJECT, SpendQuery(**mix))  # type: ignore[arg-type]
    assert refused.value.reason == "LIMIT_REACHED"


async def test_a_series_gives_each_step(spend: Spend) -> None:
    await spend.record(*random_reports(300, random.Random(6)))
    await spend.folder.fold(PROJECT)
    window = Window(FIRST_US, FIRST_US + 10 * DAY_US)
    for wanted in (EVERYTHING, SpendFilter(tag="team=a"), SpendFilter(user_id="usr_1", key_id="key_1")):

        def read(connection: Connection, asked: SpendFilter = wanted) -> tuple[int, list[int], list[int]]:
            by_hour = series_of(connection, PROJECT, asked, window, HOUR_US)
            return (
                spent_in(connection, PROJECT, asked, window),
                by_hour,
                series_of(connection, PROJECT, asked, window, DAY_US),
            )

        total, by_hour, by_day = await spend.database.read(read)
        costs = expected(spend.reports, SpendQuery(AskedWindow(), spend_filter=wanted), window).get((), (0, 0, 0))
        assert total == sum(by_hour) == sum(by_day) == costs[1]
        assert by_day == [sum(by_hour[24 * day : 24 * day + 24]) for day in range(10)]


async def test_all_time_is_a_window(spend: Spend) -> None:
    await spend.record(*random_reports(50, random.Random(7)))
    window = Window(0, FOREVER_US)
    whole = await spend.database.read(lambda connection: spent_in(connection, PROJECT, EVERYTHING, window))
    assert whole == expected(spend.reports, SpendQuery(AskedWindow()), Window(0, NOVEMBER_US))[()][1]
