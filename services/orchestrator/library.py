"""Prompts and datasets that several experiments use, kept once by their content."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

from services.orchestrator.experiment import MessageTemplate, Role
from services.orchestrator.resources import Content
from services.orchestrator.spec_codec import values_of
from services.orchestrator.templates import TemplateSyntaxError, compile_template
from services.orchestrator.values import Values
from services.runtime.errors import InvalidField


def prompt_content(messages: Iterable[MessageTemplate]) -> Content:
    """The content of a prompt. Raises InvalidField with a path that begins at "messages"."""
    messages = list(messages)
    for index, message in enumerate(messages):
        try:
            compile_template(message.text)
        except TemplateSyntaxError as error:
            raise InvalidField(f"messages[{index}].text", str(error)) from error
    return Content.of([[message.role, message.text] for message in messages])


def decode_messages(encoded: bytes) -> tuple[MessageTemplate, ...]:
    """The messages of a prompt's content."""
    return tuple(MessageTemplate(cast("Role", role), text) for role, text in json.loads(encoded))


def dataset_content(rows: Iterable[Values]) -> Content:
    """The content of a dataset; the order of its rows counts, that of their columns does not."""
    return Content.of([dict(row) for row in rows])


def decode_rows(encoded: bytes) -> tuple[Values, ...]:
    """The rows of a dataset's content."""
    return tuple(values_of(row) for row in json.loads(encoded))
