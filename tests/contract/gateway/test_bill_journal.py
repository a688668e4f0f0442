"""One suite over every journal of late bills; the file survives its process and is shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.cost_port import Reservation
from services.gateway.late_bills import Bill, Journal, JournalFull, decode_bill, encode_bill
from services.gateway.store.journal import BillJournal
from tests.contract.gateway.test_cost_port import RESERVATION, settlement
from tests.support.gateway import OWNER, MemoryJournal


@pytest.fixture(params=["in memory", "file"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return MemoryJournal(3) if request.param == "in memory" else BillJournal(tmp_path / "home" / "bills.db", 3)


async def test_bills_come_in_their_order_and_go_when_they_are_taken(journal: Journal) -> None:
    assert await journal.oldest(10) == []
    for name in ("b", "a", "c"):
        await journal.add(name, name.encode())
    assert await journal.oldest(2) == [("b", b"b"), ("a", b"a")]
    await journal.remove(["b", "c"])
    assert await journal.oldest(10) == [("a", b"a")]


async def test_no_more_are_kept_than_there_may_be(journal: Journal) -> None:
    for name in ("a", "b", "c"):
        await journal.add(name, b"x")
    with pytest.raises(JournalFull):
        await journal.add("d", b"x")
    await journal.remove(["a"])
    await journal.add("d", b"x")


async def test_the_file_is_there_for_the_next_process_and_for_no_other_user(tmp_path: Path) -> None:
    file = tmp_path / "bills.db"
    await BillJournal(file, 3).add("a", b"x")
    assert await BillJournal(file, 3).oldest(10) == [("a", b"x")]
    assert file.stat().st_mode & 0o077 == 0


async def test_a_file_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(JournalFull, match="cannot be used"):
        await BillJournal(tmp_path / "home" / "bills.db", 3).add("a", b"x")


@pytest.mark.parametrize("reservation", [None, RESERVATION])
def test_a_bill_comes_back_as_it_was(reservation: Reservation | None) -> None:
    bill = Bill(OWNER, settlement(), reservation)
    assert decode_bill(encode_bill(bill)) == bill
