"""Prompts and datasets have one form and one hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.experiment import MessageTemplate
from services.orchestrator.library import dataset_content, decode_messages, decode_rows, prompt_content
from services.orchestrator.values import Value, Values
from services.runtime.errors import InvalidField

texts = st.text(max_size=5).filter(lambda text: "{{" not in text)
messages = st.lists(st.builds(MessageTemplate, st.sampled_from(["system", "user", "assistant"]), texts), max_size=4)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
rows = st.lists(st.dictionaries(texts, st.one_of(scalars, st.lists(scalars, max_size=3).map(tuple))), max_size=4)


@given(messages)
def test_messages_come_back_in_their_order(given_messages: list[MessageTemplate]) -> None:
    content = prompt_content(given_messages)
    assert decode_messages(content.encoded) == tuple(given_messages)
    assert content.parts == len(given_messages)


@given(rows)
def test_rows_come_back_and_the_order_of_columns_does_not_matter(given_rows: list[dict[str, Value]]) -> None:
    content = dataset_content(given_rows)
    assert decode_rows(content.encoded) == tuple(given_rows)
    assert dataset_content([dict(reversed(list(row.items()))) for row in given_rows]) == content


def test_what_differs_has_another_hash() -> None:
    first: Values = {"n": 7}
    others: list[list[Values]] = [[{"n": 7.0}], [{"n": "7"}], [{"n": True}], [{"m": 7}], [first, first], [{"n": (7,)}]]
    contents = [[first], *others]
    assert len({dataset_content(each).content_hash for each in contents}) == len(contents)


def test_a_template_that_cannot_be_filled_is_refused() -> None:
    with pytest.raises(InvalidField) as refused:
        prompt_content([MessageTemplate("user", "fine"), MessageTemplate("user", "{{open")])
    assert refused.value.field == "messages[1].text"
