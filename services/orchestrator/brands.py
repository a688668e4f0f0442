"""Brands in a run's answers: what was found, and the columns that the statistics are asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.orchestrator.product import Product
from services.orchestrator.records import ResultRecord
from services.orchestrator.states import CellStatus
from services.runtime.errors import ResourceExhausted

ANSWERS_MAX: Final = 200_000
"""Cells of one summary: what the metrics service takes."""
DOMAINS_MAX: Final = 100
"""Cited domains of one summary."""


class FoundBrand(NamedTuple):
    """A brand in one answer; `brand` is its index in the spec, `position` 0 where it is only cited."""

    brand: int
    mentions: int
    position: int
    citations: int
    sentiment: float | None


class Citation(NamedTuple):
    """A domain in one answer; `brand` is the one that it belongs to, if any."""

    domain: str
    brand: int | None
    times: int


class AnswerBrands(NamedTuple):
    """What was found in one answer."""

    brands: tuple[FoundBrand, ...]
    citations: tuple[Citation, ...]


class CitedDomain(NamedTuple):
    """A domain over all answers."""

    domain: str
    brand: int | None
    answers: int
    times: int


class Names(NamedTuple):
    """What the indices of a summary stand for."""

    brands: Sequence[str]
    prompts: Sequence[str]
    models: Sequence[str]


class Places(NamedTuple):
    """Where a run's prompts, models and brands are among those of the run that it is compared with; None: not there."""

    brands: Mapping[int, int]
    prompts: Mapping[int, int]
    models: Mapping[int, int]


@dataclass(slots=True)
class BrandColumns:
    """A run's answers and what was found in them, in the columns that the metrics service takes."""

    prompts: list[int] = field(default_factory=list)
    models: list[int] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    found: list[tuple[int, FoundBrand]] = field(default_factory=list)


class BrandSummary:
    """Collects a run's answers, page by page."""

    def __init__(self, product: Product, places: Places) -> None:
        """`places` says which answers take part, and as what."""
        self._product = product
        self._places = places
        self._domains: dict[str, CitedDomain] = {}
        self.columns = BrandColumns()

    def add(self, record: ResultRecord, answer: AnswerBrands | None) -> None:
        """Count a result; `answer` is None where nothing was looked for in it. Raises ResourceExhausted."""
        address = self._product.address(record.cell)
        prompt, model = self._places.prompts.get(address.prompt), self._places.models.get(address.model)
        if prompt is None or model is None:
            return
        columns = self.columns
        index = len(columns.prompts)
        if index == ANSWERS_MAX:
            message = (
                f"the run has more than {ANSWERS_MAX:,} answers, which is the limit of a summary; export it instead"
            )
            raise ResourceExhausted("LIMIT_REACHED", message)
        columns.prompts.append(prompt)
        columns.models.append(model)
        # Answers to one prompt and row are alike, whichever model or repeat gave them.
        columns.clusters.append(prompt * self._product.rows + address.row)
        if record.status is not CellStatus.DONE or answer is None:
            columns.missing.append(index)
            return
        for found in answer.brands:
            brand = self._places.brands.get(found.brand)
            if brand is not None:
                columns.found.append((index, found._replace(brand=brand)))
        for citation in answer.citations:
            known = self._domains.get(citation.domain, CitedDomain(citation.domain, citation.brand, 0, 0))
            times = known.times + citation.times
            self._domains[citation.domain] = known._replace(answers=known.answers + 1, times=times)

    def domains(self) -> list[CitedDomain]:
        """The domains that most answers cite."""
        order = sorted(self._domains.values(), key=lambda each: (-each.answers, -each.times, each.domain))
        return order[:DOMAINS_MAX]


def same_places(names: Names) -> Places:
    """Everything where it is."""
    return Places(*({index: index for index in range(len(each))} for each in names))


def places_among(own: Names, others: Names) -> Places:
    """Where each of `own` is among `others`, by name."""
    found = []
    for mine, theirs in zip(own, others, strict=True):
        where = {name: index for index, name in reversed(list(enumerate(theirs)))}
        found.append({index: where[name] for index, name in enumerate(mine) if name in where})
    return Places(*found)
