"""How a run's progress is shown."""

import io

import pytest
from rich.console import Console

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.progress import RunView

SLOWED = run_pb2.RunPace(
    results_per_s=5.04,
    eta_us=10_000_000,
    calls=[run_pb2.ModelCalls(model="openai/gpt-5", calls_max=47)],
)


def shown(done: int, *paces: run_pb2.RunPace) -> str:
    """What is left on the screen of a view of a run of 100 cells."""
    screen = io.StringIO()
    with RunView(Console(file=screen, width=100), "study") as view:
        for pace in paces:
            view.pace(pace)
        view.show(run_pb2.RunStatistics(cells_total=100, cells_done=done, cells_scored=done))
    return screen.getvalue()


@pytest.mark.parametrize("part", ["5.0/s", "ETA 10", "openai/gpt-5: 47 calls at once"])
def test_rate_end_and_limits_are_the_servers(part: str) -> None:
    assert part in shown(50, run_pb2.RunPace(), SLOWED)


def test_a_run_that_has_ended_is_not_on_its_way() -> None:
    assert "ETA" not in shown(100, SLOWED)
    assert "at once" not in shown(100, SLOWED)


def test_without_a_pace_there_is_no_rate() -> None:
    assert "0.0/s" in shown(100)
