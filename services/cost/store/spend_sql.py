"""The one statement that sums spend: buckets of a view, and the events that no bucket holds.

It has three sources: buckets that are added or taken out, events of times that are finer than the view's buckets, and
the tail of events that are not folded into the views yet. Numbers of our own making stand in its text, everything that
a caller says is bound.

Of thousands of groups by their cost only the money is summed for all of them, to find those of the page; these few are
then looked up again for their counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, func, select, text

from services.cost.periods import FOREVER_US, QUARTER_US
from services.cost.rollups import TAG, Grain, Parts, View, parts_of, view_of
from services.cost.spend import Dimension, Order, SpendFilter, SpendQuery, SpendRow, Sums, TagShare
from services.cost.store.event_sums import events_by, rows_of_tags, tag_entry, tag_sets
from services.cost.store.rows import sums_of
from services.cost.store.tables import SPLIT, SUMMED, spend_progress, usage_events
from services.runtime.dialects import each_found, follow_indexes
from services.runtime.errors import ResourceExhausted

SLOT: Final = "slot"
COST: Final = "cost_nano_usd"
_CROWDED: Final = frozenset({"user_id", "key_id", "run_id"})
"""Columns of so many values that together with another they make thousands of groups."""
_LOOKED_UP_MAX: Final = 250
"""Groups that are looked up again for less than it costs to sum up everything of every group."""
MONEY: Final = ("calls", "unpriced_calls", COST)
_FIRST_AND_LAST: Final = select(func.min(usage_events.c.occurred_us), func.max(usage_events.c.occurred_us)).where(
    usage_events.c.project_id == bindparam("project_id")
)
_IN_SPANS: Final = (
    "events.project_id = :project_id AND events.occurred_us >= spans.start_us AND events.occurred_us < spans.end_us"
)
_ENTRIES: Final = "',' || substr(events.tags, 2)"
_HAS_TAG: Final = f"replace({_ENTRIES}, :tag_entry, '') <> {_ENTRIES}"
_PROGRESS: Final = select(spend_progress.c.folded_sequence, spend_progress.c.closed_us).where(
    spend_progress.c.project_id == bindparam("project_id")
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A stretch of time, microseconds UTC, that is summed by itself."""

    start_us: int
    end_us: int
    number: int
    """What tells its sums apart from those of other slots."""


class SpendReader:
    """Sums what fits a filter in one project, within a transaction."""

    def __init__(
        self,
        connection: Connection,
        project_id: str,
        spend_filter: SpendFilter,
        *,
        now_us: int = FOREVER_US,
        max_events: int | None = None,
    ) -> None:
        """At most `max_events` events are read that no view holds, the tail aside; None for any number."""
        self._connection = connection
        self._project_id = project_id
        self._filter = spend_filter.conditions()
        self._now_us = now_us
        self._max_events = max_events
        self._checked: set[str] = set()
        follow_indexes(connection)

    def totals(self, slots: Sequence[Slot]) -> list[Sums]:
        """The sums of each slot, each call once."""

        def statement(sources: Sources) -> str:
            return f"SELECT {SLOT}, {signed_sums(SUMMED)} FROM ({sources.union()}) AS parts GROUP BY {SLOT}"  # noqa: S608

        found = {row[SLOT]: sums_of(row) for row in self._run(slots, (), COST, statement, {})}
        return [found.get(slot.number) or Sums() for slot in slots]

    def first_keys(self, query: SpendQuery, slots: Sequence[Slot], place: int, from_key: str, limit: int) -> list[str]:
        """At most `limit` values of the key at `place` among those of the groups, in their order, from one on."""
        key = keys_of(query.group_by)[place]
        named = {"limit": limit, "from_key": from_key}

        def statement(sources: Sources) -> str:
            return (
                f"SELECT {key} FROM ({sources.union()}) AS parts WHERE {key} >= :from_key"  # noqa: S608 - our own names
                f" GROUP BY {key} ORDER BY {key} LIMIT :limit"
            )

        whole = [Slot(slots[0].start_us, slots[-1].end_us, 0)] if query.period else slots
        return [row[key] for row in self._run(whole, (key,), COST, statement, named)]

    def groups(
        self,
        query: SpendQuery,
        slots: Sequence[Slot],
        names: Mapping[int, str],
        limit: int,
        between: tuple[int, str, str] | None = None,
    ) -> list[SpendRow]:
        """At most `limit` groups in the order of the query, after its position.

        `names` are the keys of periods by the numbers of their slots, where the query divides by periods; else slot 0
        is the window, and slot 1 what it is compared with. `between` is the place of a key, and the first and the last
        value that it may have.
        """
        keys = keys_of(query.group_by)
        named: dict[str, Any] = {"limit": limit}
        ranged = ""
        if between:
            place, named["from_key"], named["to_key"] = between
            ranged = keys[place]
        after = ""
        if query.after:
            position = list(query.after)
            if query.order is Order.COST:
                named["after_cost"] = position.pop(0)
            named |= {f"after_{index}": value for index, value in enumerate(position)}
            after = f" AND {_after(keys, query.order)}"
        grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
        order = f" ORDER BY {', '.join([f'{COST} DESC'] * (query.order is Order.COST) + keys) or COST}"

        def sums_of_groups(names: Sequence[str], source: str) -> str:
            sums = _compared_sums(names) if query.compare else signed_sums(names)
            return f"SELECT {', '.join([*keys, sums])} FROM ({source}) AS parts{grouped}"  # noqa: S608 - our own names

        def statement(sources: Sources) -> str:
            two_steps = query.order is Order.COST and limit <= _LOOKED_UP_MAX and sources.finds_groups(keys)
            groups = sums_of_groups(MONEY if two_steps else SUMMED, sources.union())
            page = (
                f"SELECT * FROM ({groups}) AS sums WHERE ({_anything(compare=query.compare)}){after}"  # noqa: S608
                f"{order} LIMIT :limit"
            )
            if not two_steps:
                return page
            sources.set_page(keys, page)
            return sums_of_groups(SUMMED, sources.union_of_page(keys)) + order

        columns = [key for key in keys if key != SLOT]
        cost = SPLIT if query.tag_share is TagShare.SPLIT else COST
        rows = self._run(slots, columns, cost, statement, named, ranged)
        return [spend_row(query, keys, row, names, self._project_id) for row in rows]

    def _run(
        self,
        slots: Sequence[Slot],
        columns: Sequence[str],
        cost: str,
        statement: "Callable[[Sources], str]",
        named: Mapping[str, Any],
        ranged: str = "",
    ) -> list[RowMapping]:
        # In a transaction that sees every commit at once, events may be folded between two statements.
        while True:
            folded, closed_us = self._progress()
            sources = Sources(self._connection, slots, columns, cost, tuple(self._filter), ranged)
            self._collect(sources, closed_us)
            selection = statement(sources)
            whole = text(sources.tables() + selection)
            entry = {"tag_entry": tag_entry(self._filter.get(TAG, ""))}
            bound = {"project_id": self._project_id, **self._filter, **entry, **named, "folded": folded}
            rows = list(self._connection.execute(whole, bound).mappings())
            if folded == self._progress()[0]:
                return rows

    def _collect(self, sources: "Sources", closed_us: int) -> None:
        view = view_of({*sources.names, *self._filter})
        if view is None:
            sources.add_slots()
        else:
            sources.add_view(
                view, first_and_last(self._connection, self._project_id), closed_us=closed_us, now_us=self._now_us
            )
        if self._max_events is not None and sources.spans not in self._checked:
            sources.check({"project_id": self._project_id, **self._filter}, self._max_events)
            self._checked.add(sources.spans)
        if view is not None:
            sources.add_tail()

    def _progress(self) -> tuple[int, int]:
        """The last event that is folded, and the time until which there are all buckets."""
        found = self._connection.execute(_PROGRESS, {"project_id": self._project_id}).one_or_none()
        return (0, 0) if found is None else (found.folded_sequence, found.closed_us)


class Sources:
    """Collects what a statement reads."""

    def __init__(
        self,
        connection: Connection,
        slots: Sequence[Slot],
        columns: Sequence[str],
        cost: str,
        filtered: Sequence[str],
        ranged: str,
    ) -> None:
        """Reads what has the bound value in each column of `filtered`, and one of a bound range in column `ranged`."""
        self.names = tuple(columns)
        self.spans = ""
        """The stretches of time whose events are read, as SQL; empty for none."""
        self._connection = connection
        self._slots = slots
        self._tables: list[str] = []
        self._parts: list[str] = []
        """From what the slot, the sign and the values are selected."""
        self._view: View | None = None
        self._filtered = filtered
        self._columns = "".join(f", {name}" for name in columns)
        self._summed = ", ".join(f"{cost} AS {COST}" if name == COST else name for name in SUMMED)
        self._tagged = TAG in (*columns, *filtered)
        wanted = {name: f"{name} = :{name}" for name in filtered}
        if ranged:
            wanted.setdefault(ranged, f"{ranged} BETWEEN :from_key AND :to_key")
        self._wanted = "".join(f" AND view.{condition}" for condition in wanted.values())
        of_events = [_HAS_TAG] if TAG in filtered else []
        of_events += [f"events.{condition}" for name, condition in wanted.items() if name != TAG]
        self._wanted_events = "".join(f" AND {condition}" for condition in of_events)
        self._wanted_tags = f" WHERE {wanted[TAG]}" if TAG in wanted else ""

    def tables(self) -> str:
        """What stands before the statement."""
        return f"WITH {', '.join(self._tables)} "

    def union(self) -> str:
        """All rows to sum, with their slot and their sign."""
        return self._selected(self._parts)

    def finds_groups(self, keys: Sequence[str]) -> bool:
        """Whether a group is found by the key of the view, and there are many more than a page has."""
        if self._view is None or len(keys) < 2 or not _CROWDED & {*keys}:
            return False
        wanted = {*keys, *self._filtered} - {SLOT}
        return wanted == set(self._view.columns[: len(wanted)])

    def set_page(self, keys: Sequence[str], page: str) -> None:
        """Add the table of the groups that are wanted."""
        columns = ", ".join(f"{key} AS page_{key}" for key in keys)
        self._tables.append(f"page AS MATERIALIZED (SELECT {columns} FROM ({page}) AS found)")  # noqa: S608

    def union_of_page(self, keys: Sequence[str]) -> str:
        """The rows of these groups alone."""
        assert self._view is not None
        of_page = ", ".join(f"page_{key}" for key in keys)
        # A test, so that nobody makes a join of it: PostgreSQL thinks these tables small, and would compare each pair.
        wanted = f"WHERE (({', '.join(keys)}) IN (SELECT {of_page} FROM page)) IS TRUE"  # noqa: S608 - our own names
        listed = f"page JOIN buckets ON page_{SLOT} = {SLOT}" if SLOT in keys else "page CROSS JOIN buckets"
        same = "".join(f" AND view.{key} = page_{key}" for key in keys if key != SLOT)
        # The first part is that of the view.
        others = [f"{part} {wanted}" for part in self._parts[1:]]
        return self._selected([self._found(self._view, listed, same), *others])

    def _selected(self, parts: Iterable[str]) -> str:
        return " UNION ALL ".join(f"SELECT slot, sign{self._columns}, {self._summed} FROM {part}" for part in parts)  # noqa: S608

    def _found(self, view: View, listed: str, same: str = "") -> str:
        condition = (
            "view.project_id = :project_id AND view.grain = buckets.grain AND view.bucket_us = buckets.start_us"
            f"{same}{self._wanted}"
        )
        return each_found(self._connection, listed, view.table, "view", condition)

    def add_view(self, view: View, times: tuple[int, int], *, closed_us: int, now_us: int) -> None:
        """The buckets that make up the slots, and the folded events where a bucket would be too wide.

        `times` are those of the first and the last event.
        """
        parts: list[tuple[int, Parts]] = []
        for slot in self._slots:
            start_us, end_us = within(slot, times, view.grains)
            if start_us < end_us:
                of_slot = parts_of(start_us, end_us, view.grains, closed_us=closed_us, now_us=now_us)
                parts.append((slot.number, of_slot))
        self.add_parts(view, parts)

    def add_parts(self, view: View, parts: Iterable[tuple[int, Parts]]) -> None:
        """The buckets and the folded events that slots, named by their numbers, are made of."""
        buckets: list[str] = []
        spans: dict[tuple[int, int], list[str]] = {}
        for number, of_slot in parts:
            buckets += [f"('{one.grain.value}', {one.start_us}, {one.sign}, {number})" for one in of_slot.buckets]
            for span in of_slot.spans:
                spans.setdefault((span.start_us, span.end_us), []).append(f"{span.sign}, {number}")
        if buckets:
            self._tables.append(f"buckets(grain, start_us, sign, slot) AS (VALUES {', '.join(buckets)})")
            self._parts.append(self._found(view, "buckets"))
            self._view = view
        self._add_spans(spans, folded_only=True)

    def add_slots(self) -> None:
        """The events of the slots, folded or not."""
        spans = {(slot.start_us, slot.end_us): [f"1, {slot.number}"] for slot in self._slots}
        self._add_spans(spans, folded_only=False)

    def _add_spans(self, spans: Mapping[tuple[int, int], Sequence[str]], *, folded_only: bool) -> None:
        """Events of some times, each read once, and the signs and slots that they are added with."""
        if not spans:
            return
        rows = [f"({number}, {start_us}, {end_us})" for number, (start_us, end_us) in enumerate(spans)]
        uses = [f"({number}, {use})" for number, of_span in enumerate(spans.values()) for use in of_span]
        self.spans = f"spans(number, start_us, end_us) AS (VALUES {', '.join(rows)})"
        self._tables += [self.spans, f"uses(number, sign, slot) AS (VALUES {', '.join(uses)})"]
        # A sum, so that nobody takes the index of sequences: nearly all events are folded, and times tell them apart.
        folded = " AND events.sequence + 0 <= :folded" if folded_only else ""
        source = self._events_of_spans(f"{folded}{self._wanted_events}")
        self._add_grouped("times", {"number": "spans.number"}, "true", source)
        self._parts.append("times JOIN uses ON uses.number = times.number")

    def _events_of_spans(self, wanted: str = "") -> str:
        return each_found(self._connection, "spans", "usage_events", "events", _IN_SPANS + wanted, order="occurred_us")

    def add_tail(self) -> None:
        """The events that are not folded yet, by the quarter of an hour: slots may be many, but begin with one."""
        slots = ", ".join(f"({slot.start_us}, {slot.end_us}, 1, {slot.number})" for slot in self._slots)
        condition = f"events.project_id = :project_id AND events.sequence > :folded{self._wanted_events}"
        self._tables.append(f"slots(start_us, end_us, sign, slot) AS (VALUES {slots})")
        quarter = f"(events.occurred_us - events.occurred_us % {QUARTER_US})"
        self._add_grouped("tail", {"at_us": quarter}, condition, "usage_events AS events")
        self._parts.append("tail JOIN slots ON tail.at_us >= slots.start_us AND tail.at_us < slots.end_us")

    def _add_grouped(self, name: str, keys: Mapping[str, str], condition: str, source: str) -> None:
        """A table of sums of events; with a tag, of a row for each of their tags."""
        if not self._tagged:
            events = events_by(keys, self.names, condition, source=source)
            self._tables.append(f"{name} AS MATERIALIZED ({events})")
            return
        columns = (*(column for column in self.names if column != TAG), TAG)
        events = events_by(keys, columns, condition, source=source)
        tagged = rows_of_tags(f"{name}_events", f"{name}_sets", tuple(keys), columns)
        self._tables.append(f"{name}_events AS MATERIALIZED ({events})")
        self._tables.append(f"{name}_sets AS MATERIALIZED ({tag_sets(self._connection, f'{name}_events')})")
        self._tables.append(f"{name} AS (SELECT * FROM ({tagged}) AS tagged{self._wanted_tags})")  # noqa: S608

    def check(self, bound: Mapping[str, str], max_events: int) -> None:
        """Refuse to read too many events one by one: ResourceExhausted."""
        if not self.spans:
            return
        # An index finds the events of a user or a model alone; what else is filtered has to be read.
        alone = "".join(f" AND events.{name} = :{name}" for name in ("user_id", "model") if name in bound)
        counting = (
            f"WITH {self.spans} SELECT count(*) FROM (SELECT 1 FROM {self._events_of_spans(alone)} LIMIT :limit)"  # noqa: S608
            " AS found"
        )
        found = self._connection.execute(text(counting), {**bound, "limit": max_events + 1}).scalar_one()
        if found > max_events:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                "No sums are kept for this mix of groups and filters, and its window has more than "
                f"{max_events:,} events to add up one by one. Group and filter by one of: user and model, key and "
                "model, run and model, tag and model, tag and user; or shorten the window to whole days of UTC.",
            )


def first_and_last(connection: Connection, project_id: str) -> tuple[int, int]:
    """When the first and the last event occurred: a window may be as long as it likes."""
    first, last = connection.execute(_FIRST_AND_LAST, {"project_id": project_id}).one()
    return (0, 0) if first is None else (first, last)


def within(slot: Slot, times: tuple[int, int], grains: Sequence[Grain]) -> tuple[int, int]:
    """The beginning and the end of what a slot needs, where `times` are those of the first and the last event.

    A window that goes beyond begins with a whole bucket of the widest grain, and ends with one of the finest: wider
    ones are made only when they are over.
    """
    widest_us, finest_us = grains[0].width_us, grains[-1].width_us
    first_us, end_us = times[0] - times[0] % widest_us, times[1] - times[1] % finest_us + finest_us
    return max(slot.start_us, first_us), min(slot.end_us, end_us)


def keys_of(group_by: Iterable[Dimension]) -> list[str]:
    """The columns of the groups, in their order."""
    columns = [column for one in group_by for column in ((SLOT,) if one.period else one.columns)]
    return list(dict.fromkeys(columns))


def _after(keys: Sequence[str], order: Order) -> str:
    """The groups that follow the position that is bound."""
    position = ", ".join(f":after_{index}" for index in range(len(keys)))
    by_keys = f"({', '.join(keys)}) > ({position})" if keys else "false"
    if order is Order.KEYS:
        return by_keys
    return f"({COST} < :after_cost OR ({COST} = :after_cost AND {by_keys}))"


def signed_sums(names: Iterable[str]) -> str:
    """The sums of these columns with the signs of the rows."""
    return ", ".join(f"CAST(sum(sign * {name}) AS bigint) AS {name}" for name in names)


def _compared_sums(names: Iterable[str]) -> str:
    def of_slot(number: int, name: str, label: str) -> str:
        return f"CAST(sum(CASE WHEN {SLOT} = {number} THEN sign * {name} ELSE 0 END) AS bigint) AS {label}"

    now = [of_slot(0, name, name) for name in names]
    return ", ".join(now + [of_slot(1, name, f"before_{name}") for name in MONEY])


def _anything(*, compare: bool) -> str:
    """Groups of which nothing is left when what was added too much is taken out again are none."""
    names = [*MONEY, *(f"before_{name}" for name in MONEY if compare)]
    return " OR ".join(f"{name} <> 0" for name in names)


def spend_row(
    query: SpendQuery,
    keys: Sequence[str],
    row: RowMapping | Mapping[str, Any],
    names: Mapping[int, str],
    project_id: str,
) -> SpendRow:
    """The group of a row of sums; `names` are the keys of periods by the numbers of their slots."""

    def name_of(dimension: Dimension) -> str:
        if dimension.period:
            return names[row[SLOT]]
        if dimension is Dimension.PROJECT:
            return project_id
        return "/".join(row[column] for column in dimension.columns)

    position = tuple(row[key] for key in keys)
    before = None
    if query.compare:
        before = Sums(*(row[f"before_{name}"] for name in MONEY))
    return SpendRow(
        keys=tuple(name_of(dimension) for dimension in query.group_by),
        position=(row[COST], *position) if query.order is Order.COST else position,
        sums=sums_of(row),
        before=before,
    )
