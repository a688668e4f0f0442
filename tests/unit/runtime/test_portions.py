"""Portions: nothing is lost or moved, and each limit is reached and kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.portions import portions


@given(st.lists(st.integers(0, 12)), st.integers(1, 20), st.integers(1, 5))
def test_portions_keep_the_order_and_both_limits(sizes: list[int], size_max: int, items_max: int) -> None:
    found = list(portions(sizes, int, size_max=size_max, items_max=items_max))
    assert [size for portion in found for size in portion] == sizes
    assert all(portion for portion in found)
    assert all(len(portion) <= items_max for portion in found)
    assert all(sum(portion) <= size_max or len(portion) == 1 for portion in found)


def test_a_portion_is_as_large_as_may_be() -> None:
    assert list(portions([4, 6, 1, 30, 2], int, size_max=10)) == [[4, 6], [1], [30], [2]]
    assert list(portions([1, 1, 1], int, size_max=10, items_max=2)) == [[1, 1], [1]]
