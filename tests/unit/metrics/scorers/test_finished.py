import pytest

from services.metrics.declarations import Absent, Subject
from services.metrics.scorers.finished import finished


@pytest.mark.parametrize(
    ("reason", "value"), [("STOP", 1.0), ("TOOL_CALLS", 1.0), ("LENGTH", 0.0), ("CONTENT_FILTER", 0.0), ("PAUSE", 0.0)]
)
def test_reasons(reason: str, value: float) -> None:
    assert finished(Subject("x", finish_reason=reason)) == value


@pytest.mark.parametrize("reason", ["", "UNSPECIFIED"])
def test_unknown_is_absent(reason: str) -> None:
    assert isinstance(finished(Subject("x", finish_reason=reason)), Absent)
