import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.runtime.errors import InvalidField
from services.runtime.pages import MAX_PAGE_TOKEN_LENGTH, decode_page_token, encode_page_token, filter_fingerprint

KEYS = st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=30)), max_size=4).map(tuple)
FILTER = filter_fingerprint("ListRuns", "prj_1", ["DONE"], {"model": "m"})


@given(KEYS)
def test_a_token_gives_its_key_back(key: tuple[int | str, ...]) -> None:
    assert decode_page_token(FILTER, encode_page_token(FILTER, key)) == key


def test_the_empty_token_is_the_first_page() -> None:
    assert decode_page_token(FILTER, "") is None


def test_a_fingerprint_depends_on_every_part() -> None:
    others = [
        filter_fingerprint("ListRuns", "prj_2", ["DONE"], {"model": "m"}),
        filter_fingerprint("ListRuns", "prj_1", [], {"model": "m"}),
        filter_fingerprint("ListCells", "prj_1", ["DONE"], {"model": "m"}),
    ]
    assert len({FILTER, *others}) == 4
    assert filter_fingerprint("ListRuns", "prj_1", ["DONE"], {"model": "m"}) == FILTER


def test_a_token_of_another_filter_is_refused() -> None:
    token = encode_page_token(filter_fingerprint("ListRuns", "prj_2"), ("run_1",))
    with pytest.raises(InvalidField) as raised:
        decode_page_token(FILTER, token)
    assert (raised.value.reason, raised.value.field) == ("INVALID_PAGE_TOKEN", "page_token")


@given(st.integers(min_value=0), st.integers(0, 7))
def test_one_altered_bit_is_refused(position: int, bit: int) -> None:
    data = bytearray(base64.urlsafe_b64decode(encode_page_token(FILTER, ("run_1", 5)) + "=="))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(InvalidField):
        decode_page_token(FILTER, base64.urlsafe_b64encode(data).rstrip(b"=").decode())


@given(st.text(min_size=1, max_size=200))
def test_other_text_is_refused(token: str) -> None:
    assume(token.strip("="))
    with pytest.raises(InvalidField):
        decode_page_token(FILTER, token)


def test_a_token_has_a_longest_length() -> None:
    token = encode_page_token(FILTER, ("x" * MAX_PAGE_TOKEN_LENGTH,))
    with pytest.raises(InvalidField):
        decode_page_token(FILTER, token)
