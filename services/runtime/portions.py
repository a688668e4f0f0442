"""Many items in portions that a message has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(
    items: Iterable[T], size_of: Callable[[T], int], *, size_max: int, items_max: int | None = None
) -> Iterator[list[T]]:
    """The items in their order, in lists of at most `items_max` whose sizes sum to at most `size_max`.

    An item that is larger by itself has a list of its own: whether it is too large is for others to say.
    """
    portion: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if portion and (len(portion) == items_max or total + size > size_max):
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += size
    if portion:
        yield portion
