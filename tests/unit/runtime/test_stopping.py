"""Work that ends when it is not wanted any more."""

import pytest

from services.runtime.stopping import Stopped, check_stopped, run_stoppable


def test_work_ends_at_its_next_look() -> None:
    steps: list[int] = []

    def work(count: int) -> int:
        for step in range(count):
            check_stopped()
            steps.append(step)
        return count

    assert run_stoppable(lambda: len(steps) == 3, work, 2) == 2
    with pytest.raises(Stopped):
        run_stoppable(lambda: len(steps) == 3, work, 2)
    assert steps == [0, 1, 0]
    assert work(2) == 2  # nobody can stop this one


def test_what_catches_exceptions_does_not_go_on() -> None:
    assert not issubclass(Stopped, Exception)
