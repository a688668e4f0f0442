"""How a run's progress is shown."""

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.progress import RunView

BEGAN = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def shown(*moments: tuple[int, float]) -> str:
    """The last line of a view that was shown these (cells done, seconds) of a run of 100 cells."""
    screen = io.StringIO()
    with RunView(Console(file=screen, width=100), "study") as view:
        for done, seconds in moments:
            statistics = run_pb2.RunStatistics(cells_total=100, cells_done=done, cells_scored=done)
            view.show(statistics, BEGAN + timedelta(seconds=seconds))
    return screen.getvalue()


def test_the_rate_is_the_runs_own_however_late_it_is_watched() -> None:
    assert "5.0/s" in shown((0, 0), (50, 10))
    assert "ETA 10" in shown((0, 0), (50, 10))


def test_one_moment_makes_no_rate() -> None:
    assert "0.0/s" in shown((100, 0))
