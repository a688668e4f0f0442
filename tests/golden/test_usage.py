"""Usage to the token: answers with every kind of token, whole and streamed, in every format, against written figures.

A fixture names the document that its answer follows; `usage` is what is to be read from it, everything else being 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.gateway.collector import Collector
from services.gateway.usage import TokenUsage
from tests.support.gateway import collected, request
from tests.support.provider_kinds import KINDS, provider_of
from tests.support.provider_streams import JSON, SSE, sse
from tests.support.replay import Reply, replay_server

FIXTURES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "usage").glob("*.json"))
}
ENDS = {"openai": [b"data: [DONE]\n\n"]}


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("form", ["whole", "stream"])
async def test_usage_agrees_to_the_token(name: str, form: str) -> None:
    fixture = FIXTURES[name]
    kind = fixture.get("format", name)
    if form == "whole":
        reply = Reply(headers=JSON, pieces=(json.dumps(fixture["whole"]).encode(),))
    else:
        reply = Reply(headers=SSE, pieces=(*sse(*fixture["stream"]), *ENDS.get(kind, [])))
    async with replay_server(lambda _: reply) as server:
        provider = provider_of(kind, server.base_url)
        events, failed = await collected(provider.stream(request(), 0))
        await provider.close()
    answer = Collector()
    answer.add(events)
    assert failed is None
    assert answer.text() == "Hi."
    assert answer.usage == TokenUsage(**fixture["usage"])


def test_every_format_has_a_fixture_and_every_kind_of_token_is_in_one() -> None:
    assert {fixture.get("format", name) for name, fixture in FIXTURES.items()} == set(KINDS)
    counted = {kind for fixture in FIXTURES.values() for kind in fixture["usage"]}
    assert counted == set(TokenUsage.__dataclass_fields__) - {"steps", "measured"}
