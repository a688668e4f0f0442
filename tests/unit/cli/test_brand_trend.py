import pytest

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import brand_trend
from llmlab.cli.app import CommandError
from llmlab.client import Client, Endpoints


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        ([f"run-{number}" for number in range(brand_trend.RUNS_MAX + 1)], "at most 20 runs, not 21"),
        (["run-1", "run-2", "run-1"], "each run once"),
    ],
)
async def test_too_many_runs_and_one_named_twice_are_told_before_any_is_asked_for(
    ids: list[str], complaint: str
) -> None:
    async with Client(Endpoints(), api_key="none") as client:
        with pytest.raises(CommandError, match=complaint):
            await brand_trend.gather(client, [run_pb2.Run(run_id=run_id) for run_id in ids])
