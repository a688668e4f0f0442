"""When the roller works and when it rests."""

from services.cost.roller import SHARE_MAX, TAIL_WANTED, Roller


class NothingToDo:
    """No project is behind, or has hours to pack."""

    async def unpacked(self, limit: int) -> list[str]:
        """None."""
        return []

    async def pack(self, project_id: str) -> int:
        """Nothing."""
        return 0

    async def behind(self, limit: int) -> list[str]:
        """None."""
        return []

    async def fold(self, project_id: str) -> int:
        """Nothing."""
        return 0


def test_rounds_are_an_interval_apart_and_further_where_they_take_long() -> None:
    roller = Roller(NothingToDo(), NothingToDo(), interval_s=2.0)
    assert roller.pause_s(2.0, 0.1, 100) == 2.0
    pause_s = roller.pause_s(2.0, 4.0, TAIL_WANTED)
    assert 4.0 / (4.0 + pause_s) == SHARE_MAX


def test_a_round_comes_earlier_where_it_would_find_too_many_events() -> None:
    roller = Roller(NothingToDo(), NothingToDo(), interval_s=10.0)
    assert roller.pause_s(10.0, 2.0, 4 * TAIL_WANTED) == 12.0 / 4
