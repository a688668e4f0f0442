import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.ids import id_time_ms, new_id

LAST_MS = 2**48 - 1


def test_an_id_has_its_prefix_and_26_characters() -> None:
    assert re.fullmatch(r"run_[0-9a-hjkmnp-tv-z]{26}", new_id("run"))


def test_a_prefix_may_hold_an_underscore() -> None:
    assert id_time_ms(new_id("price_version", now_us=5_000)) == 5


@given(st.integers(0, LAST_MS))
def test_the_time_comes_back(now_ms: int) -> None:
    assert id_time_ms(new_id("x", now_us=now_ms * 1_000 + 999)) == now_ms


@given(st.integers(0, LAST_MS), st.integers(0, LAST_MS))
def test_text_order_is_time_order(first_ms: int, second_ms: int) -> None:
    first, second = new_id("x", now_us=first_ms * 1_000), new_id("x", now_us=second_ms * 1_000)
    if first_ms != second_ms:
        assert (first < second) == (first_ms < second_ms)


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id("x", now_us=1) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("text", ["", "run", "run_", "run_short", "run_" + "u" * 26, "run_" + "A" * 26])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an identifier"):
        id_time_ms(text)
