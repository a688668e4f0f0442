"""What a watcher of a project's runs is told, on SQLite and on PostgreSQL."""

from __future__ import annotations

from services.orchestrator.run_changes import RunChanges
from services.orchestrator.states import RunStatus
from services.orchestrator.store import SqlLedger
from tests.support.ledger import NO_KEY, PROJECT, claim, start


async def end(ledger: SqlLedger, run_id: str) -> None:
    """A run that nobody works on ends by its cancel."""
    await ledger.cancel_run(PROJECT, run_id, NO_KEY, b"", lambda _: b"")


async def test_runs_that_go_on_come_first_and_then_only_what_changes(ledger: SqlLedger) -> None:
    await start(ledger, "run_1", cells=2)
    await start(ledger, "run_2", cells=2)
    await start(ledger, "run_3", project_id="another", experiment_id="exp_3")
    await end(ledger, "run_1")
    changes = RunChanges(ledger, PROJECT, "")
    assert [run.run_id for run in await changes.first()] == ["run_2"]
    assert await changes.changed() == []

    await claim(ledger)
    (running,) = await changes.changed()
    assert running.status is RunStatus.RUNNING
    assert await changes.changed() == []


async def test_a_run_is_told_of_though_it_begins_and_ends_between_two_looks(ledger: SqlLedger) -> None:
    await start(ledger, "run_1")
    changes = RunChanges(ledger, PROJECT, "")
    assert [run.run_id for run in await changes.first()] == ["run_1"]
    await start(ledger, "run_2")
    await end(ledger, "run_2")
    await end(ledger, "run_1")
    assert [(run.run_id, run.status) for run in await changes.changed()] == [
        ("run_1", RunStatus.CANCELLED),
        ("run_2", RunStatus.CANCELLED),
    ]
    assert await changes.changed() == []


async def test_only_the_runs_of_an_experiment_are_told_of_where_one_is_named(ledger: SqlLedger) -> None:
    await start(ledger, "run_1", experiment_id="exp_1")
    await start(ledger, "run_2", experiment_id="exp_2")
    changes = RunChanges(ledger, PROJECT, "exp_2")
    assert [run.run_id for run in await changes.first()] == ["run_2"]
