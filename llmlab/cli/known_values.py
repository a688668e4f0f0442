"""What to tell a person who asks about a user, key, run, tag or model that has no usage: which do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches

from llmlab.api.cost.v1 import spend_pb2
from llmlab.client import Client

KNOWN_SHOWN_MAX = 3
KNOWN_COMPARED_MAX = 1000
_DIMENSIONS = {
    "provider": spend_pb2.SPEND_DIMENSION_PROVIDER,
    "model": spend_pb2.SPEND_DIMENSION_MODEL,
    "user": spend_pb2.SPEND_DIMENSION_USER,
    "key": spend_pb2.SPEND_DIMENSION_KEY,
    "run": spend_pb2.SPEND_DIMENSION_RUN,
    "tag": spend_pb2.SPEND_DIMENSION_TAG,
}


def filter_of(named: Mapping[str, str]) -> spend_pb2.SpendFilter:
    """Makes the filter of options by name: provider, model ("provider/model", "provider/"), user, key, run, tag."""
    model = named.get("model", "")
    provider, name = model.split("/", 1) if "/" in model else ("", model)
    return spend_pb2.SpendFilter(
        provider=named.get("provider", "") or provider,
        model=name,
        user_id=named.get("user", ""),
        key_id=named.get("key", ""),
        run_id=named.get("run", ""),
        tag=named.get("tag", ""),
    )


def window_of(back: timedelta) -> spend_pb2.SummarizeSpendRequest:
    """Makes the question about the spend from so long ago until now."""
    window = spend_pb2.SummarizeSpendRequest()
    window.rolling.FromTimedelta(back)
    return window


async def without_usage(client: Client, window: spend_pb2.SummarizeSpendRequest, named: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each option whose value has no usage in a window: the nearest values that have.

    Args:
        client: Asks for the spend.
        window: The window, and no filter.
        named: Options and their values, as `filter_of` takes them; empty values are not asked about.
    """
    sentences = []
    for name, value in named.items():
        if not value:
            continue
        question = spend_pb2.SummarizeSpendRequest()
        question.CopyFrom(window)
        question.filter.CopyFrom(filter_of({name: value}))
        if (await client.summarize_spend(question=question)).total.calls:
            continue
        question.ClearField("filter")
        question.order = spend_pb2.SPEND_ORDER_COST
        found = await client.summarize_spend(question=question, group_by=[_DIMENSIONS[name]], limit=KNOWN_COMPARED_MAX)
        known = [row.keys[0] for row in found.rows if row.keys[0]]
        nearest = get_close_matches(value, known, n=KNOWN_SHOWN_MAX) or known[:KNOWN_SHOWN_MAX]
        others = f"; those with usage include {', '.join(nearest)}" if nearest else ""
        sentences.append(f"--{name} {value} has no usage{others}.")
    return sentences
