"""Blocks stay exact when what they hold is charged anew: repricings, what takes them back, and late usage."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import orjson
import pytest
from sqlalchemy import Connection, RowMapping, select

from services.cost.periods import QUARTER_US, PeriodKind, period_at
from services.cost.pricing.repricing import RepricingFilter, RepricingState
from services.cost.rollups import DAY_US, HOUR_US
from services.cost.spend import EVERYTHING, Dimension, Order, SpendFilter, SpendQuery, SpendRow, TagShare
from services.cost.store.block_reader import BlockReader
from services.cost.store.block_writer import Packer
from services.cost.store.rollups import Folder
from services.cost.store.spend_sql import Slot
from services.cost.store.tables import usage_events
from services.cost.usage import Attribution
from services.cost.windows import AskedWindow, Window, slots_of
from tests.contract.cost.test_repricing import applied, state_price, store
from tests.support.cost import NOVEMBER_US, report
from tests.support.cost_store import PROJECT, Cost

FIRST_US: Final = NOVEMBER_US // DAY_US * DAY_US - DAY_US
LAST_US: Final = NOVEMBER_US // HOUR_US * HOUR_US - 4 * HOUR_US
"""Hours until then are over, and in blocks."""
MIXES: Final[tuple[tuple[Dimension, ...], ...]] = (
    (Dimension.USER,),
    (Dimension.USER, Dimension.PROVIDER),
    (Dimension.MODEL, Dimension.USER),
    (Dimension.MODEL, Dimension.KEY),
    (Dimension.TAG, Dimension.MODEL),
    (Dimension.TAG, Dimension.USER),
    (Dimension.DAY, Dimension.USER),
    (Dimension.DAY, Dimension.TAG, Dimension.MODEL),
)
ZONES: Final = ("UTC", "America/St_Johns", "Asia/Kathmandu")
Figures = dict[tuple[str, ...], tuple[int, int, int, int]]
"""Calls, unpriced calls, cost and output tokens by the keys of groups."""


def questions() -> list[SpendQuery]:
    """Every mix that blocks answer, and days of every zone, over windows that begin and end within hours."""
    made = []
    for number, mix in enumerate(MIXES):
        for zone in ZONES if Dimension.DAY in mix else ("UTC",):
            window = AskedWindow(FIRST_US + number * QUARTER_US, LAST_US - number * 3 * QUARTER_US, zone=zone)
            share = TagShare.SPLIT if Dimension.TAG in mix and number % 2 else TagShare.FULL
            # No sums are kept of tags, users and providers together.
            filtered = number % 4 == 0 and not {Dimension.TAG, Dimension.USER} <= {*mix}
            spend_filter = SpendFilter(provider="acme") if filtered else EVERYTHING
            made.append(SpendQuery(window, mix, spend_filter, share, list(Order)[number % 2], page_size=1_000))
    return made


def scanned(rows: Sequence[RowMapping], query: SpendQuery) -> Figures:
    """What all rows of usage come to, corrections among them, one by one; groups of nothing but tokens are none."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    start_us, end_us = query.asked.start_us, query.asked.end_us
    for row in rows:
        if not (start_us or 0) <= row["occurred_us"] < (end_us or 0):
            continue
        tags = [f"{name}={value}" for name, value in sorted(orjson.loads(row["tags"]).items())] or [""]
        cost = row["cost_nano_usd"]
        part = abs(cost) // len(tags) * (1 if cost > 0 else -1)
        for place, tag in enumerate(tags if Dimension.TAG in query.group_by else [""]):
            share = cost if query.tag_share is TagShare.FULL else part + (0 if place else cost - part * len(tags))
            values = {
                Dimension.DAY: period_at(row["occurred_us"], PeriodKind.DAILY, query.asked.zone).key,
                Dimension.PROVIDER: row["provider"],
                Dimension.MODEL: f"{row['provider']}/{row['model']}",
                Dimension.USER: row["user_id"],
                Dimension.KEY: row["key_id"],
                Dimension.TAG: tag,
            }
            figures = found[tuple(values[one] for one in query.group_by)]
            for index, value in enumerate((row["calls"], row["unpriced_calls"], share, row["output_tokens"])):
                figures[index] += value
    return {keys: (a, b, c, d) for keys, (a, b, c, d) in found.items() if a or b or c}


def figures_of(rows: Sequence[SpendRow]) -> Figures:
    return {
        row.keys: (row.sums.calls, row.sums.unpriced_calls, row.sums.cost_nano_usd, row.sums.counts[5]) for row in rows
    }


class Packed:
    """A project whose usage is folded a few events at a time, and packed."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.folder = Folder(cost.database, max_events=60)
        self.packer = Packer(cost.database, min_events=1)
        self.questions = questions()

    async def fold(self, *, pack: bool) -> None:
        """Fold everything; hours are packed between two steps, so that they lack what comes later."""
        while await self.folder.fold(PROJECT):
            while pack and await self.packer.pack(PROJECT):
                pass

    async def check(self, *, by_blocks: bool) -> list[Figures]:
        """Compare every answer with a scan of the events, and what blocks answer where they are to do so."""
        rows, of_blocks = await self.cost.database.read(self._read)
        answers = [figures_of((await self.cost.spend.summarize(PROJECT, query)).rows) for query in self.questions]
        for query, answer, page in zip(self.questions, answers, of_blocks, strict=True):
            assert answer == scanned(rows, query), query
            assert (page is not None) is by_blocks, query
            assert page is None or figures_of(page) == answer, query
        return answers

    def _read(self, connection: Connection) -> tuple[Sequence[RowMapping], list[list[SpendRow] | None]]:
        rows = connection.execute(select(usage_events)).mappings().all()
        reader = BlockReader(connection, PROJECT, now_us=self.cost.clock.now_us())
        return rows, [self._page(reader, query) for query in self.questions]

    def _page(self, reader: BlockReader, query: SpendQuery) -> list[SpendRow] | None:
        start_us, end_us = query.asked.start_us or 0, query.asked.end_us or 0
        if not query.period:
            return reader.groups(query, [Slot(start_us, end_us, 0)], {}, query.page_size)
        days = slots_of(Window(start_us, end_us), query.period, query.asked.zone)
        slots = [Slot(day.starts_us, day.ends_us, day.starts_us) for day in days]
        return reader.groups(query, slots, {day.starts_us: day.key for day in days}, query.page_size)


@pytest.fixture
async def packed(cost: Cost) -> Packed:
    chance = random.Random(11)
    reports = []
    for number in range(150):
        tags = [("env", chance.choice("xyz")), ("run", chance.choice("12")), ("team", chance.choice("ab"))]
        kept = tuple(tag for tag in tags if chance.random() < 0.6)
        attribution = Attribution(f"usr_{chance.randrange(4)}", f"key_{chance.randrange(3)}", "", kept)
        at_us = chance.randrange(FIRST_US, LAST_US)
        model = chance.choice(["flat", "flat", "free", "secret"])
        tokens = chance.randrange(1, 99)
        reports.append(report(f"e{number}", tokens=tokens, model=model, occurred_us=at_us, attribution=attribution))
    found = Packed(cost)
    await cost.books.report(PROJECT, reports[:120])
    await found.fold(pack=True)
    await cost.books.report(PROJECT, reports[120:])
    return found


async def test_blocks_follow_repricings_and_what_takes_them_back(packed: Packed) -> None:
    cost = packed.cost
    late = await packed.check(by_blocks=True)
    await packed.fold(pack=False)
    assert await packed.check(by_blocks=False) == late
    await packed.fold(pack=True)
    while await packed.packer.pack(PROJECT):
        pass
    assert await packed.check(by_blocks=True) == late

    await state_price(cost, 1, 333)
    await applied(cost, "rpr_1", limit=40)
    cheaper = await packed.check(by_blocks=True)
    assert cheaper != late
    await packed.fold(pack=True)
    assert await packed.check(by_blocks=True) == cheaper

    await state_price(cost, 2, 7_001)
    middle_us = (FIRST_US + LAST_US) // 2
    await applied(cost, "rpr_2", RepricingFilter(FIRST_US, middle_us), limit=40)
    await packed.fold(pack=False)
    assert await packed.check(by_blocks=False) != cheaper
    for repricing_id, standing in (("rpr_2", cheaper), ("rpr_1", late)):
        while (await store(cost).reverse(PROJECT, repricing_id, 40)).state is not RepricingState.REVERSED:
            pass
        await packed.fold(pack=True)
        assert await packed.check(by_blocks=True) == standing
