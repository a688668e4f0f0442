"""Spans for the items of a batch, each below the trace context that it carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from services.runtime.tracing import is_recorded

if TYPE_CHECKING:
    from services.runtime.spans import Attribute, Span, Tracer


class Item(Protocol):
    """Something that belongs to a trace of its own, or to none."""

    @property
    def traceparent(self) -> str:
        """W3C's trace context; empty for none."""
        ...


class ItemSpans:
    """The spans of a batch: they begin and end together, as the items are dealt with together."""

    def __init__(self, spans: Mapping[int, Span]) -> None:
        self._spans = spans

    def traceparent(self, index: int) -> str:
        """The context of an item's span; empty where it has none."""
        return self._spans[index].traceparent if index in self._spans else ""

    def set(self, index: int, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes to the span of an item, where it has one."""
        if index in self._spans:
            self._spans[index].set(attributes)

    def fail(self, index: int, reason: str) -> None:
        """An item was refused, for this reason."""
        if index in self._spans:
            self._spans[index].fail(reason)


@contextmanager
def item_spans(tracer: Tracer | None, name: str, items: Sequence[Item]) -> Iterator[ItemSpans | None]:
    """Spans of the recorded items during the context; None where there are none."""
    if tracer is None:
        yield None
        return
    recorded = [index for index, item in enumerate(items) if item.traceparent and is_recorded(item.traceparent)]
    if not recorded:
        yield None
        return
    attributes = {"llmlab.batch.size": len(items)}
    spans = {
        index: tracer.begin(name, items[index].traceparent, kind="server", attributes=attributes) for index in recorded
    }
    try:
        yield ItemSpans(spans)
    except BaseException as error:
        _fail_all(spans.values(), getattr(error, "reason", "") or type(error).__name__)
        raise
    finally:
        for span in spans.values():
            span.end()


def _fail_all(spans: Iterable[Span], reason: str) -> None:
    for span in spans:
        span.fail(reason)
