from itertools import count

import pytest

from services.orchestrator.cells import CellQueue, Shard
from services.orchestrator.congestion import CallWindows
from services.orchestrator.ledger import ShardKey
from services.orchestrator.limits import RunLimits
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.plan import RunPlan
from services.orchestrator.records import RunRecord, Statistics
from services.orchestrator.spec_codec import encode_spec
from services.orchestrator.states import RunStatus
from services.runtime.clock import ManualClock
from tests.support.orchestrator import answer, study


def queue(
    clock: ManualClock, *, rate: int = 0, slots: int = 4, cells: int = 8, windows: CallWindows | None = None
) -> tuple[CellQueue, Shard]:
    """A queue with one fresh shard."""
    spec = study(rows=10)
    run = RunRecord(
        "run_1",
        "prj_1",
        "exp_1",
        "a study",
        RunStatus.RUNNING,
        "hash",
        RunLimits(concurrency=8, requests_per_minute=rate).in_force(),
        "usr_1",
        "",
        "dlg_1",
        created_us=1,
        statistics=Statistics(cells_total=40),
    )
    plan = RunPlan(run, encode_spec(spec))
    made = CellQueue(plan, clock, windows or CallWindows(8, clock, plan.model_index, fixed=True))
    shard = Shard(ShardKey("run_1", 0, 3), cells, slots)
    made.add(shard)
    made.push(shard, shard.range)
    return made, shard


def take(from_queue: CellQueue, limit: int) -> list[tuple[int, int]]:
    nonces = count()
    return [(sent.cell, sent.attempt) for sent in from_queue.take(limit, lambda: str(next(nonces)))]


def test_fresh_cells_come_in_order_and_retries_when_they_are_due() -> None:
    clock = ManualClock()
    cells, _ = queue(clock)
    assert take(cells, 3) == [(0, 1), (1, 1), (2, 1)]
    cells.calls.pop(1)
    cells.count(1, "failed", 1)
    cells.push_later(1, 2.0)

    assert take(cells, 1) == [(3, 1)]
    clock.advance(2)
    assert take(cells, 9) == [(1, 2), (4, 1), (5, 1), (6, 1), (7, 1)]
    assert cells.waiting == 0
    assert take(cells, 9) == []


def test_it_says_how_long_to_wait() -> None:
    clock = ManualClock()
    cells, _ = queue(clock)
    assert cells.wait_s() == 0
    take(cells, 8)
    assert cells.wait_s() is None

    cells.push_later(5, 3.0)
    clock.advance(1)

    assert cells.wait_s() == pytest.approx(2)


def test_cells_of_a_model_without_room_are_passed_by_and_come_first_when_it_has_some() -> None:
    clock = ManualClock()
    windows = CallWindows(4, clock, lambda cell: cell // 2 % 2, fixed=False)
    cells, _ = queue(clock, cells=40, windows=windows)

    # Two cells of one model, two of the other, and so on: each has room for four.
    assert [cell for cell, _ in take(cells, 6)] == [0, 1, 2, 3, 4, 5]
    windows.end(2, answer())
    windows.end(3, answer())
    assert [cell for cell, _ in take(cells, 9)] == [6, 7, 10, 11]
    assert cells.holds_back
    assert cells.wait_s() is None

    windows.end(5, answer())
    assert cells.wait_s() == 0
    assert take(cells, 9) == [(8, 1)]
    cells.drop_waiting()
    assert not cells.holds_back


def test_the_lane_keeps_its_share_of_the_rate() -> None:
    clock = ManualClock()
    cells, shard = queue(clock, rate=480, cells=16)

    assert len(take(cells, 8)) == 4
    assert cells.wait_s() == pytest.approx(0.25)
    clock.advance(0.5)
    assert len(take(cells, 8)) == 2
    shard.slots = 8
    assert take(cells, 8) == []
    clock.advance(0.25)
    assert len(take(cells, 8)) == 2


def test_finished_cells_leave_their_shard() -> None:
    cells, shard = queue(ManualClock())
    take(cells, 2)
    cells.calls.clear()

    cells.finish(0)
    cells.finish(0)

    assert shard.open == set(range(1, 8))
    assert cells.shard_of(0) is None
    assert cells.shard_of(1) is shard


def test_a_lost_shard_takes_its_waiting_cells_with_it_and_calls_go_on() -> None:
    cells, shard = queue(ManualClock())
    take(cells, 2)
    cells.push_later(7, 0)

    cells.remove(shard)

    assert cells.calls == {0: 1, 1: 1}
    assert take(cells, 9) == []
    assert (cells.slots, cells.waiting, cells.wait_s()) == (0, 0, None)
    cells.push_later(0, 0)
    assert cells.waiting == 0


def test_dropping_what_waits_leaves_calls_under_way() -> None:
    cells, shard = queue(ManualClock())
    take(cells, 2)

    cells.drop_waiting()

    assert shard.open == {0, 1}
    assert take(cells, 9) == []


def test_histories_decide_the_next_attempt() -> None:
    cells, _ = queue(ManualClock(), cells=2)
    cells.know({0: CellHistory(counted=2, unsent=1)})

    assert take(cells, 2) == [(0, 4), (1, 1)]
    assert cells.history(0).counted == 2
    assert cells.is_busy(0)
