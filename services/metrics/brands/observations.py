"""What was found in the answers of a run, in columns that cross into a worker process as they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from services.metrics.intervals import Clusters, Numbers
from services.runtime.errors import InvalidField

Indices = npt.NDArray[np.int64]
NOT_JUDGED = 2.0
"""In the column of sentiments: none was judged."""


@dataclass(frozen=True)
class Observations:
    """Answers by prompt and model, and the brands found in them; an answer is known by its index."""

    prompts: Indices
    models: Indices
    clusters: Indices
    missing: Indices
    found_in: Indices
    found_brand: Indices
    found_mentions: Indices
    found_position: Indices
    found_citations: Indices
    found_sentiment: Numbers

    def check(self, path: str, *, brands: int, prompts: int, models: int) -> None:
        """Raises InvalidField where the columns don't fit together; `path` is their place in the request."""
        cells = len(self.prompts)
        for name, column, length, limit in (
            ("prompts", self.prompts, cells, prompts),
            ("models", self.models, cells, models),
            ("missing", self.missing, len(self.missing), cells),
            ("found_in", self.found_in, len(self.found_in), cells),
            ("found_brand", self.found_brand, len(self.found_in), brands),
            ("found_mentions", self.found_mentions, len(self.found_in), None),
            ("found_position", self.found_position, len(self.found_in), None),
            ("found_citations", self.found_citations, len(self.found_in), None),
        ):
            if len(column) != length:
                raise InvalidField(f"{path}.{name}", f"has {len(column)} entries, the others of its kind have {length}")
            if len(column) and (column.min() < 0 or (limit is not None and column.max() >= limit)):
                raise InvalidField(f"{path}.{name}", "holds an index of nothing")
        if len(self.clusters) not in (0, cells):
            raise InvalidField(f"{path}.clusters", f"must be as many as prompts ({cells}) or none")
        judged = self.found_sentiment[self.found_sentiment != NOT_JUDGED]
        if len(self.found_sentiment) != len(self.found_in) or not (np.abs(judged) <= 1.0).all():
            raise InvalidField(f"{path}.found_sentiment", "must hold a number from -1 to 1, or 2, for each brand found")
        if len(np.unique(self.found_in * brands + self.found_brand)) != len(self.found_in):
            raise InvalidField(f"{path}.found_in", "names a brand twice in one answer")

    @cached_property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Whether each cell gave an answer."""
        answered = np.ones(len(self.prompts), np.bool_)
        answered[self.missing] = False
        return answered

    @cached_property
    def all_mentions(self) -> Numbers:
        """Mentions of all brands in each answer."""
        return self._per_answer(self.found_mentions.astype(np.float64))

    @cached_property
    def all_presences(self) -> Numbers:
        """How many brands each answer mentions."""
        return self._per_answer((self.found_mentions > 0).astype(np.float64))

    def clusters_of(self, answers: Indices) -> Clusters | None:
        """The clusters of some answers."""
        return self.clusters[answers] if len(self.clusters) else None

    def column(self, brand: int, values: npt.NDArray[np.generic], default: float = 0.0) -> Numbers:
        """One of the columns of what was found, for one brand and every answer."""
        spread = np.full(len(self.prompts), default)
        rows = self._rows[brand]
        spread[self.found_in[rows]] = values[rows]
        return spread

    @cached_property
    def _rows(self) -> dict[int, Indices]:
        order = np.argsort(self.found_brand, kind="stable")
        brands, starts = np.unique(self.found_brand[order], return_index=True)
        rows = dict(zip(brands.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}
        return _Default(rows)

    def _per_answer(self, weights: Numbers) -> Numbers:
        return np.bincount(self.found_in, weights=weights, minlength=len(self.prompts)).astype(np.float64)


class _Default(dict[int, Indices]):
    """No rows for a brand that was never found."""

    def __missing__(self, brand: int) -> Indices:
        return np.zeros(0, np.int64)
