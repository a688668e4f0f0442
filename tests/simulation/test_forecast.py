"""A few studies of `make -s bench NAME=forecast`: each is planned, run and paid for."""

from __future__ import annotations

import pytest

from bench.forecast import measure


async def test_actual_costs_lie_in_the_intervals_of_their_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")  # so that what the benchmark sets ends with the test
    outcomes = await measure(studies=3)
    assert [each.basis for each in outcomes] == ["assumed", "same_study", "same_model"]
    assert all(each.holds for each in outcomes), outcomes
