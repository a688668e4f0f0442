"""Values that several of the services have in common on the wire."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import error_pb2, usage_pb2
from llmlab.api.cost.v1 import spend_pb2
from services.cost.events import Cost
from services.cost.spend import Sums
from services.cost.usage import Attribution, Usage, UsageSource
from services.runtime.errors import DomainError, InvalidField

_CODE_NUMBERS: Final = {code.name: int(code.value[0]) for code in grpc.StatusCode}
_MODEL_SEPARATOR: Final = "/"
_SOURCES: Final = {int(source): source for source in UsageSource}
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799


def microseconds_of(timestamp: Timestamp) -> int:
    """Microseconds UTC. InvalidField for a time that is not of the years 1 to 9999, as the type demands."""
    if not _FIRST_S <= timestamp.seconds <= _LAST_S:
        raise InvalidField("time", f"{timestamp.seconds} s since 1970 is not a time of the years 1 to 9999.")
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1_000


def check_texts(*texts: str) -> None:
    """Refuse the character U+0000, which PostgreSQL does not keep: it would fail the transaction that others share."""
    if "\x00" in "".join(texts):
        raise InvalidField("text", "One of the texts contains the character U+0000; leave it out.")


def timestamp_of(at_us: int) -> Timestamp:
    """The time of microseconds UTC."""
    seconds, microseconds = divmod(at_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1_000)


def usage_of(message: usage_pb2.TokenUsage) -> Usage:
    """Token counts, unchecked."""
    return Usage(
        message.input_tokens,
        message.cache_read_tokens,
        message.cache_write_5m_tokens,
        message.cache_write_1h_tokens,
        message.input_audio_tokens,
        message.output_tokens,
        message.reasoning_tokens,
        message.output_audio_tokens,
        _source_of(message.source),
        message.steps,
    )


def usage_message(usage: Usage) -> usage_pb2.TokenUsage:
    """Token counts of one call."""
    message = _counts_message(usage.counts())
    message.source = usage_pb2.UsageSource.ValueType(usage.source)
    return message


def attribution_of(message: spend_pb2.Attribution) -> Attribution:
    """What a call is charged to; the tags are sorted, so that equal ones are equal. InvalidField for useless texts."""
    user_id, key_id, run_id, tags = message.user_id, message.key_id, message.run_id, entries_of(message.tags)
    check_texts(user_id, key_id, run_id, *chain.from_iterable(tags))
    for key, _ in tags:
        if "=" in key:
            raise InvalidField("attribution.tags", "A tag's key contains '='; reports name tags as key=value.")
    return Attribution(user_id, key_id, run_id, tags)


def entries_of(entries: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The entries of a map of texts, sorted by key."""
    # The containers of protobuf are slow: the fewer calls the better.
    return tuple([(key, entries[key]) for key in sorted(entries)]) if entries else ()


def attribution_message(attribution: Attribution) -> spend_pb2.Attribution:
    """What a call is charged to."""
    return spend_pb2.Attribution(
        user_id=attribution.user_id,
        key_id=attribution.key_id,
        run_id=attribution.run_id,
        tags=dict(attribution.tags),
    )


def cost_message(cost: Cost) -> usage_pb2.Cost:
    """The cost of one call."""
    return usage_pb2.Cost(
        cost_nano_usd=cost.nano_usd, unpriced_calls=0 if cost.priced else 1, price_version=cost.price_version
    )


def sums_message(keys: Sequence[str], sums: Sums) -> spend_pb2.SpendRow:
    """The sums of a group of calls."""
    return spend_pb2.SpendRow(
        keys=keys,
        calls=sums.calls,
        usage=_counts_message(sums.counts),
        cost=usage_pb2.Cost(cost_nano_usd=sums.cost_nano_usd, unpriced_calls=sums.unpriced_calls),
    )


def call_error(error: DomainError) -> error_pb2.CallError:
    """A refusal inside a batch. Nothing was sent to a provider for it, and waiting does not help."""
    exhausted = error.code == "RESOURCE_EXHAUSTED"
    return error_pb2.CallError(
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        error_class=error_pb2.ERROR_CLASS_RATE_LIMIT if exhausted else error_pb2.ERROR_CLASS_INVALID_REQUEST,
        message=error.message,
        grpc_code=_CODE_NUMBERS[error.code],
        retryable=False,
        dispatched=False,
    )


def split_model(name: str, field: str) -> tuple[str, str]:
    """The parts of "provider/model"; the model's own name may hold further slashes. InvalidField names `field`."""
    provider, separator, model = name.partition(_MODEL_SEPARATOR)
    if not provider or not separator or not model:
        raise InvalidField(field, f"{name!r} is not provider/model; write one such as openai/gpt-4o-mini.")
    return provider, model


def _counts_message(counts: Sequence[int]) -> usage_pb2.TokenUsage:
    """The counts, in the order of `Usage.counts`."""
    return usage_pb2.TokenUsage(
        input_tokens=counts[0],
        cache_read_tokens=counts[1],
        cache_write_5m_tokens=counts[2],
        cache_write_1h_tokens=counts[3],
        input_audio_tokens=counts[4],
        output_tokens=counts[5],
        reasoning_tokens=counts[6],
        output_audio_tokens=counts[7],
        steps=counts[8],
    )


def _source_of(number: int) -> UsageSource:
    return _SOURCES.get(number, UsageSource.UNKNOWN)
