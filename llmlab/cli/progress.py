"""Following a run on the screen: live on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures, money
from llmlab.client import Client

LINE_EVERY_S = 5.0


class RunView:
    """Shows how a run goes, from its events: the rate and the time left are the server's."""

    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._label = label
        self._pace = run_pb2.RunPace()
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

    def pace(self, pace: run_pb2.RunPace) -> None:
        """Takes how fast it goes; that stays shown until the next one."""
        self._pace = pace

    def show(self, statistics: run_pb2.RunStatistics) -> None:
        """Shows the counts."""
        ended = cells_ended(statistics)
        self._progress.update(
            self._task, total=statistics.cells_total, completed=ended, detail=self._detail(statistics, ended)
        )
        if not self._console.is_terminal and time.monotonic() - self._printed_s >= LINE_EVERY_S:
            self._print_line()

    def _print_line(self) -> None:
        self._printed_s = time.monotonic()
        task = self._progress.tasks[self._task]
        self._console.print(
            f"{self._label} {task.completed:.0f}/{task.total or 0:.0f}  {task.fields['detail']}", highlight=False
        )

    def _detail(self, statistics: run_pb2.RunStatistics, ended: int) -> str:
        left = statistics.cells_total - ended
        parts = [f"{self._pace.results_per_s:.1f}/s"]
        if left and self._pace.HasField("eta_us"):
            parts.append(f"ETA {figures.duration(self._pace.eta_us / 1e6)}")
        parts += [f"{calls.model}: {calls.calls_max} calls at once" for calls in self._pace.calls if left]
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
        async for event in client.watch_run(run_id, on_pace=view.pace):
            statistics = statistics_of(event)
            if statistics is not None:
                view.show(statistics)
    return await client.get_run(run_id)
