"""Questions to a model that judges, and what came back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from services.metrics.json_text import JsonTooLarge, parse_json


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """The model that judges, and how it is called."""

    model: str
    temperature: float | None = None
    """None leaves it to the gateway."""
    timeout_ms: int = 0
    """0 means the gateway's default."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags for the bill."""
    encoded_options: bytes = b""
    """Further parameters of the call, which only adapters read."""
    max_output_tokens: int = 0
    """0 means what `encoded_options` say."""
    run_id: str = ""
    """The run that pays; empty for none."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the judge. The answer has to follow the JSON schema."""

    system: str
    user: str
    schema: str
    call_id: str = ""
    """Minted where it is empty."""
    traceparent: str = ""
    """The trace context that the call belongs to; empty for that of the request."""


class Again(Enum):
    """Whether a call that gave no answer may be made again."""

    NO = "no"
    SAME_ID = "same id"
    """Nothing was held or sent, or nobody knows: under an id that was used it is refused, at no cost."""
    NEW_ID = "new id"
    """Its id is used up: a call has left under it, now or earlier."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one question. `text` is the visible answer without reasoning; empty where the call failed."""

    call_id: str
    text: str
    cost_nano_usd: int
    unpriced_calls: int
    input_tokens: int
    output_tokens: int
    failure: str = ""
    """Why there is no answer: the reason and the message; empty where there is one."""
    again: Again = Again.NO
    retry_after_ms: int = 0
    """How long to wait before it is made again, at least."""


class JudgeCalls(Protocol):
    """Calls models on the caller's behalf: the caller's budgets and limits hold."""

    async def ask(self, token: str, judge: JudgeModel, asks: Sequence[Ask]) -> list[Reply]:
        """A reply to each question, in order; a call that failed spoils no other.

        Raises:
            DomainError: no call could be made at all.
        """
        ...


def schema_of(field_name: str, verdict: Mapping[str, Any]) -> str:
    """The JSON schema of an answer: reasons first, so that the verdict follows from them, then the verdict itself."""
    return json.dumps(
        {
            "type": "object",
            "properties": {"reasons": {"type": "string"}, field_name: verdict},
            "required": ["reasons", field_name],
            "additionalProperties": False,
        }
    )


@dataclass(frozen=True, slots=True)
class Stated:
    """The verdict field of a well-formed answer, and the reasons beside it."""

    verdict: object
    reasons: str


def stated(text: str, field_name: str) -> Stated | str:
    """What an answer states, or why it is malformed. Only the field counts: nothing is read out of reasons or prose."""
    try:
        found = parse_json(text)
    except JsonTooLarge:
        return "the verdict is too large"
    if found is None or not isinstance(found.value, dict):
        return "the verdict is not a JSON object"
    if field_name not in found.value:
        return f"the verdict has no field {field_name!r}"
    reasons = found.value.get("reasons", "")
    # JSON can escape half of a surrogate pair, which no message can carry.
    shown = reasons.encode("utf-8", "replace").decode() if isinstance(reasons, str) else ""
    return Stated(found.value[field_name], shown)
