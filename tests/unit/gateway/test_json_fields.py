"""What odd JSON in a provider's answer is read as."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.providers.json_fields import COUNT_MAX, count_of, index_of, object_of, objects_of, text_of

ODD: tuple[Any, ...] = (None, "text", 1.5, [], [1], {"a": 1})


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (7, 7), (7.9, 7), (-3, 0), (2**70, COUNT_MAX), (float("inf"), COUNT_MAX), ("7", 0), (None, 0), ([7], 0)],
)
def test_a_count_is_within_its_bounds(value: Any, count: int) -> None:
    assert count_of(value) == count


@pytest.mark.parametrize("value", ODD)
def test_a_field_of_another_type_is_read_as_absent(value: Any) -> None:
    assert object_of(value) == (value if isinstance(value, dict) else {})
    assert text_of(value) == (value if isinstance(value, str) else "")
    assert index_of(value) == 0
    assert objects_of(value) == []


def test_things_that_are_no_objects_are_left_out_of_a_list() -> None:
    assert objects_of([{"a": 1}, None, "b", {"c": 2}]) == [{"a": 1}, {"c": 2}]
