"""Telemetry in the text format that Prometheus reads (version 0.0.4).

A counter `rpcs` becomes `llmlab_rpcs_total`, a level `breakers_open` becomes `llmlab_breakers_open`, a histogram
`rpc_ms` becomes `llmlab_rpc_ms_bucket`, `_sum` and `_count`, in the unit of its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from services.runtime.telemetry import BUCKETS, Histogram, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "llmlab_"

_Labels = tuple[tuple[str, str], ...]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_BOUNDS = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")


def exposition(taken: Series) -> str:
    """The text. It takes tens of milliseconds where there are hundreds of series: for a thread, not for the loop."""
    lines: list[str] = []
    for kind, suffix, values in (("counter", "_total", taken.counters), ("gauge", "", taken.levels)):
        last = ""
        for (name, labels), value in sorted(values.items()):
            full = f"{PREFIX}{name}{suffix}"
            if full != last:
                lines.append(f"# TYPE {full} {kind}")
                last = full
            lines.append(f"{full}{_braced(labels)} {value:g}" if value % 1 else f"{full}{_braced(labels)} {int(value)}")
    last = ""
    for (name, labels), histogram in sorted(taken.histograms.items(), key=lambda item: item[0]):
        full = PREFIX + name
        if full != last:
            lines.append(f"# TYPE {full} histogram")
            last = full
        lines.extend(_histogram(full, labels, histogram))
    return "".join(f"{line}\n" for line in lines)


def _histogram(name: str, labels: _Labels, histogram: Histogram) -> Iterator[str]:
    counts = list(accumulate(histogram.buckets))
    for bound, count in zip(_BOUNDS, counts, strict=True):
        yield f"{name}_bucket{_braced((*labels, ('le', bound)))} {count}"
    yield f"{name}_sum{_braced(labels)} {histogram.total:g}"
    # Of the same moment as the buckets, which go on counting.
    yield f"{name}_count{_braced(labels)} {counts[-1]}"


def _braced(labels: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels)
    return f"{{{inside}}}" if inside else ""
