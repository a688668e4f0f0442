"""Things kept by name, at most so many: the one not asked for longest goes first.

Names of models can come from callers, so whatever is kept per deployment needs a bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """A bounded dictionary that makes what it lacks."""

    def __init__(self, make: Callable[[str], T], size_max: int) -> None:
        self._make = make
        self._size_max = size_max
        self._items: OrderedDict[str, T] = OrderedDict()

    def get(self, name: str) -> T:
        """The thing of this name, made where it is not there."""
        item = self._items.get(name)
        if item is None:
            item = self._items[name] = self._make(name)
            if len(self._items) > self._size_max:
                self._items.popitem(last=False)
        else:
            self._items.move_to_end(name)
        return item

    def sorted(self) -> list[T]:
        """All, by name."""
        return [self._items[name] for name in sorted(self._items)]
