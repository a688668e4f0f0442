"""Following a run on the screen: live on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures, money
from llmlab.client import Client

LINE_EVERY_S = 5.0


class RunView:
    """Shows how a run goes, from its events.

    The rate is measured by the events' own times, so that a run which is watched late does not look faster than it is.
    """

    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._label = label
        self._began_s: float | None = None
        self._ended_before = 0
        self._printed_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(label, total=None, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if not self._console.is_terminal:
            self._print_line()

    def show(self, statistics: run_pb2.RunStatistics, at: datetime) -> None:
        """Shows the counts as they were at a time."""
        ended = cells_ended(statistics)
        at_s = at.timestamp()
        if self._began_s is None:
            self._began_s, self._ended_before = at_s, ended
        detail = self._detail(statistics, ended, at_s - self._began_s)
        self._progress.update(self._task, total=statistics.cells_total, completed=ended, detail=detail)
        if not self._console.is_terminal and time.monotonic() - self._printed_s >= LINE_EVERY_S:
            self._print_line()

    def _print_line(self) -> None:
        self._printed_s = time.monotonic()
        task = self._progress.tasks[self._task]
        self._console.print(
            f"{self._label} {task.completed:.0f}/{task.total or 0:.0f}  {task.fields['detail']}", highlight=False
        )

    def _detail(self, statistics: run_pb2.RunStatistics, ended: int, elapsed_s: float) -> str:
        rate = (ended - self._ended_before) / elapsed_s if elapsed_s > 0 else 0.0
        left = statistics.cells_total - ended
        parts = [f"{rate:.1f}/s"]
        if left and rate > 0:
            parts.append(f"ETA {figures.duration(left / rate)}")
        parts.append(money.cost(statistics.cost))
        lost = statistics.cells_failed + statistics.cells_unknown
        if lost:
            parts.append(f"[red]{lost} failed[/red]")
        if not left and statistics.cells_scored < statistics.cells_done:
            parts.append(f"scored {statistics.cells_scored}/{statistics.cells_done}")
        return "  ".join(parts)


def cells_ended(statistics: run_pb2.RunStatistics) -> int:
    """Counts the cells that have a result of any kind."""
    return statistics.cells_done + statistics.cells_failed + statistics.cells_unknown


def statistics_of(event: run_pb2.RunEvent) -> run_pb2.RunStatistics | None:
    """Returns the statistics that an event carries, if it carries any."""
    kind = event.WhichOneof("event")
    if kind in (None, "started", "result"):
        return None
    statistics: run_pb2.RunStatistics = getattr(event, str(kind)).statistics
    return statistics


async def follow(client: Client, run_id: str, console: Console, label: str) -> run_pb2.Run:
    """Shows a run until it has ended and returns it."""
    with RunView(console, label) as view:
        async for event in client.watch_run(run_id):
            statistics = statistics_of(event)
            if statistics is not None:
                view.show(statistics, event.time.ToDatetime(UTC))
    return await client.get_run(run_id)
