"""A few small seeds of `make chaos-budget`: real processes, kill -9 of the service and of its database."""

import pytest

from bench.chaos_budget import Scale, run_seed
from bench.cost_server import DatabaseKind

SMALL = Scale(calls_at_once=200, granted=40, kills=1, hold_life_ms=1_000, late_s=1.4)


@pytest.mark.parametrize(("seed", "kind"), [(1, "postgresql"), (2, "sqlite")])
async def test_no_budget_is_overspent_whatever_is_killed(seed: int, kind: DatabaseKind) -> None:
    outcome = await run_seed(seed, kind, SMALL)
    assert outcome.failure == ""
    assert (outcome.calls, outcome.kills) == (800, 2)
    assert outcome.used >= 0.99
