"""Events that differ in one text alone are told as if they were read whole, and no other event is taken for one."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.providers.same_but_text import SameButText

LEARNED = {"id": "c1", "choices": [{"index": 0, "delta": {"content": " a"}, "finish_reason": None}]}


def event(text: object, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return orjson.dumps({"id": "c1", "choices": [choice], **more})


def taught(data: bytes | None = None, text: str = " a") -> SameButText:
    alike = SameButText("content")
    alike.learn(orjson.dumps(LEARNED) if data is None else data, text)
    return alike


@given(st.text(st.characters(codec="utf-8")))
def test_any_other_text_in_its_place_is_told(text: str) -> None:
    assert taught().text(event(text)) == text


@pytest.mark.parametrize(
    "data",
    [
        event(None),
        event(7),
        event(["a"]),
        event("a", usage={}),
        event("a").replace(b"c1", b"c2"),
        event("a").replace(b"null", b'"stop"'),
        # What stands in the text's place ends the text and says more.
        event("a").replace(b'"a"', b'"a","role":"assistant"'),
        event("a").replace(b'"a"', b'"a'),
        b"",
        b"[DONE]",
        orjson.dumps(LEARNED)[:-30],
    ],
)
def test_an_event_that_differs_elsewhere_is_not_taken_for_one(data: bytes) -> None:
    assert taught().text(data) == ""


def test_other_ways_to_write_json_are_learned_too() -> None:
    assert taught(b'{"delta": {"content":  " a"}}').text(b'{"delta": {"content":  "\\u00fc\\/"}}') == "ü/"


@pytest.mark.parametrize(
    "data",
    [
        b'{"content":" a","delta":{"content":" a"}}',
        b'{"delta":{"content":"\\u0020a"}}',
        b'{"delta":{"text":" a"}}',
    ],
)
def test_what_is_not_sure_is_not_learned(data: bytes) -> None:
    alike = taught(data)
    alike.learn(orjson.dumps(LEARNED), " a")
    assert alike.text(data) == ""
    assert alike.text(orjson.dumps(LEARNED)) == ""
