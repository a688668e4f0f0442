"""Random questions about spend, of everything that the service keeps sums for."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import available_timezones

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from bench.cost_events import DAYS, ENVIRONMENTS, KEYS, MODELS, RUNS_A_DAY, TEAMS, USERS, model_name
from llmlab.api.cost.v1 import spend_pb2 as pb

KEPT_TOGETHER: Final = (
    {"model", "provider", "user"},
    {"model", "provider", "key"},
    {"model", "provider", "run"},
    {"model", "provider", "tag"},
    {"tag", "user"},
)
"""What sums are kept for together, as the contract says; any other mix is added up event by event, or refused."""
PERIODS: Final = ("day", "week", "month")
DIMENSIONS: Final = (*PERIODS, "model", "provider", "user", "key", "run", "tag", "project")
FILTERS: Final = ("model", "provider", "user", "key", "run", "tag")
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo")
ANY_ZONE: Final = tuple(sorted(available_timezones()))


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the names of what it groups and filters by."""

    request: pb.SummarizeSpendRequest
    group_by: tuple[str, ...]
    filters: tuple[str, ...]
    second_page: bool

    def __str__(self) -> str:
        """One line."""
        request = self.request
        window = request.period or "30 days"
        if request.HasField("rolling"):
            window = f"{request.rolling.seconds // 3_600} h"
        elif request.HasField("start_time"):
            window = f"{request.start_time.ToJsonString()} - {request.end_time.ToJsonString()}"
        words = [
            " x ".join(self.group_by) or "total",
            *(f"of a {name}" for name in self.filters),
            *(["by cost"] if request.order == pb.SPEND_ORDER_COST else []),
            *(["compared"] if request.compare else []),
            *(["second page"] if self.second_page else []),
            f"{window}, {request.time_zone}, page of {request.page_size or 100}",
        ]
        return ", ".join(words)


class Questions:
    """An endless supply of them, made by a seed."""

    def __init__(self, seed: int, end: datetime) -> None:
        """Events end at `end`."""
        self._chance = random.Random(seed)  # noqa: S311 - a seeded load
        self._end = end

    def next(self) -> Question:
        """The next one."""
        chance = self._chance
        group_by, filters = self._subject()
        request = pb.SummarizeSpendRequest(
            time_zone=chance.choice(ZONES if chance.random() < 0.5 else ANY_ZONE),
            page_size=chance.choice((0, 0, 0, 10, 1_000)),
        )
        request.group_by.extend(pb.SpendDimension.Value(f"SPEND_DIMENSION_{name.upper()}") for name in group_by)
        for name in filters:
            self._narrow(request.filter, name)
        if not set(group_by) & set(PERIODS):
            request.compare = chance.random() < 0.25
        if set(group_by) - set(PERIODS) and chance.random() < 0.5:
            request.order = pb.SPEND_ORDER_COST
        if "tag" in group_by and chance.random() < 0.4:
            request.tag_share = pb.TAG_SHARE_SPLIT
        self._set_window(request)
        return Question(request, group_by, filters, bool(group_by) and chance.random() < 0.15)

    def _subject(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Dimensions and filters for which sums are kept."""
        while True:
            group_by = tuple(self._chance.sample(DIMENSIONS, self._chance.choices((0, 1, 2, 3), (20, 50, 25, 5))[0]))
            filters = tuple(self._chance.sample(FILTERS, self._chance.choices((0, 1, 2), (55, 38, 7))[0]))
            wanted = {*group_by, *filters} - {*PERIODS, "project"}
            if sum(name in PERIODS for name in group_by) < 2 and any(wanted <= kept for kept in KEPT_TOGETHER):
                return group_by, filters

    def _narrow(self, spend_filter: pb.SpendFilter, name: str) -> None:
        draw = self._chance.randrange
        match name:
            case "provider":
                spend_filter.provider = spend_filter.provider or model_name(draw(MODELS))[0]
            case "model":
                spend_filter.provider, spend_filter.model = model_name(draw(MODELS))
            case "tag":
                team = f"team=t{draw(TEAMS)}"
                spend_filter.tag = self._chance.choice((team, f"env=e{draw(ENVIRONMENTS)}"))
            case "user":
                spend_filter.user_id = f"usr_{draw(USERS)}"
            case "key":
                spend_filter.key_id = f"key_{draw(KEYS)}"
            case _:
                spend_filter.run_id = f"run_{draw(DAYS)}_{draw(RUNS_A_DAY)}"

    def _set_window(self, request: pb.SummarizeSpendRequest) -> None:
        chance = self._chance
        at = self._end - timedelta(seconds=chance.randrange(DAYS * 86_400))
        match chance.choice(("period", "rolling", "times", "default")):
            case "period":
                patterns = ("%Y-%m-%d", "%G-W%V", "%Y-%m", "%Y-%m", f"%Y-Q{(at.month + 2) // 3}")
                request.period = at.strftime(chance.choice(patterns))
            case "rolling":
                hours = chance.choice((24, 7 * 24, 30 * 24, 30 * 24, 90 * 24, chance.randrange(1, DAYS * 24)))
                request.rolling.CopyFrom(Duration(seconds=3_600 * hours))
            case "times":
                other = self._end - timedelta(seconds=chance.randrange(DAYS * 86_400))
                for field, time in zip((request.start_time, request.end_time), sorted((at, other)), strict=True):
                    field.CopyFrom(Timestamp(seconds=int(time.timestamp())))
            case _:
                pass
