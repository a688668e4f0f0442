"""Old holds are deleted; what was settled stays known from its event."""

from sqlalchemy import Connection, select, text

from services.cost.holds import ExpiryPolicy
from services.cost.ledger import LATE_MAX_US
from services.cost.rollups import DAY_US
from services.cost.store.retention import HoldRetention
from services.cost.store.tables import holds
from tests.support.cost import order, settlement, worst_case_of
from tests.support.cost_store import PROJECT, Cost, reasons

KEPT_DAYS = 7
IDS = ["settled", "released", "expired", "live"]


async def kept(cost: Cost) -> list[str]:
    def load(connection: Connection) -> list[str]:
        return list(connection.execute(select(holds.c.attempt_id).order_by(holds.c.attempt_id)).scalars())

    return await cost.database.read(load)


async def resolve_all(cost: Cost) -> None:
    """One hold of each state; "live" lives for a day, the others are over after a minute."""
    await cost.books.hold(PROJECT, [order(name) for name in IDS[:3]])
    await cost.books.hold(PROJECT, [order("live", expires_in_ms=86_400_000)])
    await cost.books.settle(PROJECT, [settlement("settled", tokens=7)])
    await cost.books.release(PROJECT, ["released", "never-held"])
    cost.clock.advance(61)
    await cost.books.expire(ExpiryPolicy.CHARGE, 10)


async def test_what_is_final_is_deleted_after_its_time_in_bounded_batches(cost: Cost) -> None:
    retention = HoldRetention(cost.database, keep_us=KEPT_DAYS * DAY_US)
    await resolve_all(cost)
    cost.clock.advance(KEPT_DAYS * 86_400 - 120)
    assert await retention.run_once(10) == 0
    cost.clock.advance(120)
    assert [await retention.run_once(2), await retention.run_once(2), await retention.run_once(2)] == [2, 1, 0]
    assert await kept(cost) == ["expired", "live"]
    cost.clock.advance(LATE_MAX_US // 1_000_000)
    assert await retention.run_once(10) == 1
    assert await kept(cost) == ["live"]


async def test_no_more_are_deleted_than_asked_for_whatever_plan_the_database_chooses(cost: Cost) -> None:
    retention = HoldRetention(cost.database, keep_us=KEPT_DAYS * DAY_US)
    await resolve_all(cost)
    cost.clock.advance(KEPT_DAYS * 86_400)

    def delete_row_by_row(connection: Connection) -> int:
        if connection.dialect.name == "postgresql":
            for way in ("hashjoin", "mergejoin", "material", "hashagg", "sort"):
                connection.execute(text(f"SET LOCAL enable_{way} = off"))
        return retention.delete_old(connection, 1)

    assert [await cost.database.write(delete_row_by_row) for _ in range(4)] == [1, 1, 1, 0]


async def test_a_settled_attempt_is_known_from_its_event_after_its_hold_is_gone(cost: Cost) -> None:
    budget_id = await cost.budget(10**9)
    await resolve_all(cost)
    cost.clock.advance(KEPT_DAYS * 86_400 + 1)
    await HoldRetention(cost.database, keep_us=KEPT_DAYS * DAY_US).run_once(10)
    again = await cost.books.settle(PROJECT, [settlement("settled", tokens=7), settlement("settled", tokens=8)])
    assert again[0].cost is not None
    assert again[0].cost.nano_usd == 7_000
    assert reasons(again[1:]) == ["HOLD_RESOLVED"]  # type: ignore[arg-type]
    assert reasons(await cost.books.hold(PROJECT, [order("settled"), order("settled", nonce="n2")])) == [
        "HOLD_RESOLVED",
        "HOLD_RESOLVED",
    ]
    released = await cost.books.release(PROJECT, ["settled"])
    assert released[0].error is not None
    known = (await cost.books.resolve(PROJECT, ["settled"]))[0]
    assert (known.state.value, known.cost.nano_usd) == ("settled", 7_000)
    assert await cost.standing(budget_id) == (7_000 + worst_case_of(100), worst_case_of(100))
    assert (await cost.total()).calls == 1
