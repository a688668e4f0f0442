"""How calls are cut into requests to the gateway."""

from __future__ import annotations

from services.orchestrator.calls import CallPlan, PlannedCall
from services.orchestrator.dispatch import cut_to_size

PLAN = CallPlan("run_1", "mock/small", {}, {}, timeout_ms=1_000)


def calls(*texts: str) -> list[PlannedCall]:
    return [PlannedCall(f"run_1/{cell}/1", "n", PLAN, (("user", text),)) for cell, text in enumerate(texts)]


def sizes(planned: list[PlannedCall], bytes_max: int) -> list[int]:
    return [len(part) for part in cut_to_size(planned, bytes_max)]


def test_requests_are_cut_by_the_bytes_of_their_texts() -> None:
    assert sizes(calls("abcd", "abcd", "abcd"), 8) == [2, 1]
    assert sizes(calls("äöü", "äöü"), 8) == [1, 1]


def test_a_call_that_is_too_large_goes_alone() -> None:
    assert sizes(calls("a", "x" * 100, "b"), 8) == [1, 1, 1]
