import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.runtime.failpoints import FailpointError, Failpoints, arm, failpoint


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_an_unarmed_failpoint_does_nothing() -> None:
    failpoint("anything")


def test_an_error_is_raised_at_every_hit() -> None:
    armed = arm("a=error; b=error")

    for _ in range(2):
        with pytest.raises(FailpointError, match="failpoint a"):
            failpoint("a")
    assert armed.hits == {"a": 2, "b": 0}


def test_only_the_hit_that_is_named_acts() -> None:
    armed = arm("a=error@2")
    failpoint("a")
    with pytest.raises(FailpointError):
        failpoint("a")
    failpoint("a")

    assert armed.hits == {"a": 3}


def test_a_sleep_lets_go_on() -> None:
    armed = arm("a=sleep:0.1")
    failpoint("a")

    assert armed.hits == {"a": 1}


@pytest.mark.parametrize("text", ["a", "a=explode", "=kill", "a=sleep", "a=sleep:soon", "a=kill@x"])
def test_a_malformed_specification_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LLMLAB_FAILPOINTS"):
        Failpoints(text)


def test_a_kill_leaves_no_chance_to_clean_up() -> None:
    script = (
        "from services.runtime.failpoints import failpoint\n"
        "try:\n    failpoint('a'); print('first', flush=True); failpoint('a')\n"
        "finally:\n    print('cleaned up')"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env={"LLMLAB_FAILPOINTS": "a=kill@2"}, capture_output=True, text=True
    )

    assert (process.returncode, process.stdout) == (-signal.SIGKILL, "first\n")
