"""The SQL that sums usage events, one by one, and gives each of their tags its share."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from sqlalchemy import Connection

from services.cost.rollups import TAG
from services.cost.store.rows import NO_ENTRIES
from services.cost.store.tables import SPLIT, SUMMED
from services.cost.usage import COUNT_FIELDS
from services.runtime.dialects import json_entries

_WIDE: Final = frozenset(SUMMED) - frozenset(COUNT_FIELDS)


def tag_entry(tag: str) -> str:
    """A tag as it stands behind a comma in the JSON object of an event's tags.

    Inside a JSON text every quote follows a backslash: a comma and a quote begin an entry, and nothing else does.
    """
    name, _, value = tag.partition("=")
    return f",{orjson.dumps(name).decode()}:{orjson.dumps(value).decode()}"


def events_by(
    keys: Mapping[str, str], columns: Sequence[str], condition: str, *, source: str = "usage_events AS events"
) -> str:
    """A query that sums the events that fit a condition by `keys` (expressions by their names) and `columns`.

    With a tag among the columns the events are summed by all of their tags together, for `rows_of_tags`.
    """
    plain = [f"events.{name}" for name in columns if name != TAG]
    # PostgreSQL sums numbers of 64 bits as decimals. Counts of one event have 32, and sums of those have 64.
    sums = [f"CAST(sum(events.{name}) AS bigint) AS {name}" for name in SUMMED if name in _WIDE]
    sums += [f"sum(CAST(events.{name} AS integer)) AS {name}" for name in COUNT_FIELDS]
    if TAG in columns:
        plain.append("events.tags")
        parts = "(CASE WHEN events.tag_count > 1 THEN events.tag_count ELSE 1 END)"
        sums.append(f"CAST(sum(events.cost_nano_usd / {parts}) AS bigint) AS share")
        sums.append(f"sum(CAST(events.cost_nano_usd % {parts} AS integer)) AS rest")
    named = [f"{expression} AS {name}" for name, expression in keys.items()]
    return (
        f"SELECT {', '.join([*named, *plain, *sums])} FROM {source} WHERE {condition}"  # noqa: S608 - our own names
        f" GROUP BY {', '.join([*keys.values(), *plain])}"
    )


def tag_sets(connection: Connection, table: str) -> str:
    """A query for a row of each tag of each set of tags in a table: the set as written, the tag, and if it is first.

    Few sets are shared by many events, so that the texts are taken apart once for each and not for each event. Without
    any tag there is the empty one.
    """
    entry, other = (json_entries(connection, "given.tags", name) for name in ("entry", "other"))
    first = f"CASE WHEN entry.key = (SELECT min(other.key) FROM {other}) THEN 1 ELSE 0 END"  # noqa: S608
    return (
        f"SELECT given.tags AS tags, entry.key || '=' || entry.value AS {TAG}, {first} AS is_first"  # noqa: S608
        f" FROM (SELECT DISTINCT tags FROM {table} WHERE tags <> '{NO_ENTRIES}') AS given CROSS JOIN {entry}"
        f" UNION ALL SELECT '{NO_ENTRIES}', '', 1"
    )


def rows_of_tags(table: str, sets: str, keys: Sequence[str], columns: Sequence[str]) -> str:
    """A query for a row of each tag of what `events_by` summed; `sets` is the table of their `tag_sets`.

    An equal share of the cost is each tag's, and what the division leaves the first one's.
    """
    kept = ", ".join([*keys, *(name for name in columns if name != TAG), *SUMMED])
    return (
        f"SELECT {kept}, sets.{TAG} AS {TAG}, share + rest * sets.is_first AS {SPLIT}"  # noqa: S608 - our own names
        f" FROM {table} AS events JOIN {sets} AS sets ON sets.tags = events.tags"
    )
