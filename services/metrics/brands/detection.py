"""Finding brands in answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from services.metrics.brands.brand_set import Brand, BrandNames, check_brands
from services.metrics.brands.folding import Folded, fold
from services.metrics.brands.links import Links
from services.metrics.brands.listing import Lists
from services.metrics.brands.names import Found, NameMatcher
from services.metrics.brands.spans import Spans

MENTIONS_DETAILED_MAX: Final = 200
"""Mentions of one answer that are given one by one; further ones are counted."""
DOMAINS_MAX: Final = 100
"""Domains of one answer that are given."""
_DETECTORS_KEPT: Final = 16


class Mention(NamedTuple):
    """One place where a brand is named. Offsets are characters of the answer as it is, from 0."""

    brand: int
    start: int
    end: int
    list_ordinal: int
    """The item of a list that it stands in, from 1; 0 outside of lists."""


class BrandCount(NamedTuple):
    """What one answer says of one brand that it mentions or cites."""

    brand: int
    mentions: int
    position: int
    """Rank among the brands of the answer by first mention, from 1; 0 where it is only cited."""
    citations: int
    """How often one of its domains is named or linked."""


class Citation(NamedTuple):
    """A domain that an answer names or links."""

    domain: str
    brand: int | None
    """The brand whose domain it is; None where it belongs to none."""
    times: int


class Detection(NamedTuple):
    """What one answer says of the brands: those found in it, in the order of their first mention."""

    brands: tuple[BrandCount, ...]
    mentions: tuple[Mention, ...]
    citations: tuple[Citation, ...]


class Detector:
    """Finds the brands of one list."""

    def __init__(self, names: BrandNames) -> None:
        """Compiles the names."""
        self._names = NameMatcher([name for name, _ in names.names])
        self._brands = [brand for _, brand in names.names]
        self._context_brands = [brand for _, brand in names.contexts]
        contexts = [name for name, _ in names.contexts]
        self._contexts = NameMatcher(contexts, self._context_brands) if contexts else None
        self._with_contexts = frozenset(self._context_brands)
        self._domains = names.domains

    def detect(self, answer: str) -> Detection:
        """What `answer` says of the brands. Linear in its length."""
        folded = fold(answer)
        links = Links(folded.text)
        found = self._names.find(folded.text)
        if links.any:
            found = [each for each in found if not links.cover(each.start, each.end)]
        if self._contexts is not None:
            found = self._outside_contexts(self._contexts, folded.text, found)
        citations = self._citations(links)
        return Detection(
            brands=self._counts(found, citations),
            mentions=self._mentions(answer, folded, found[:MENTIONS_DETAILED_MAX]),
            citations=citations,
        )

    def _outside_contexts(self, contexts: NameMatcher, text: str, found: list[Found]) -> list[Found]:
        """The names that don't lie inside an excluded context of their brand."""
        if not any(self._brands[each.name] in self._with_contexts for each in found):
            return found
        excluded: dict[int, list[tuple[int, int]]] = {}
        for context in contexts.find_longest(text):
            excluded.setdefault(self._context_brands[context.name], []).append((context.start, context.end))
        spans = {brand: Spans(stretches) for brand, stretches in excluded.items()}
        return [each for each in found if not self._is_covered(each, spans)]

    def _is_covered(self, found: Found, spans: Mapping[int, Spans]) -> bool:
        own = spans.get(self._brands[found.name])
        return own is not None and own.cover(found.start, found.end)

    def _citations(self, links: Links) -> tuple[Citation, ...]:
        counts: dict[str, int] = {}
        for host in links.hosts():
            domain = self._tracked(host.name) or (host.name if host.addressed else "")
            if domain and (domain in counts or len(counts) < DOMAINS_MAX):
                counts[domain] = counts.get(domain, 0) + 1
        return tuple(Citation(domain, self._domains.get(domain), count) for domain, count in counts.items())

    def _tracked(self, host: str) -> str:
        """The brand's domain that the host is or lies under; empty where there is none."""
        name = host
        while name:
            if name in self._domains:
                return name
            name = name.partition(".")[2]
        return ""

    def _counts(self, found: Sequence[Found], citations: Sequence[Citation]) -> tuple[BrandCount, ...]:
        if not found and not citations:
            return ()
        mentions: dict[int, int] = {}
        brands = self._brands
        for name, _, _ in found:
            brand = brands[name]
            mentions[brand] = mentions.get(brand, 0) + 1
        cited: dict[int, int] = {}
        for citation in citations:
            if citation.brand is not None:
                cited[citation.brand] = cited.get(citation.brand, 0) + citation.times
        named = [
            BrandCount(brand, count, position, cited.pop(brand, 0))
            for position, (brand, count) in enumerate(mentions.items(), 1)
        ]
        return (*named, *(BrandCount(brand, 0, 0, count) for brand, count in cited.items()))

    def _mentions(self, answer: str, folded: Folded, found: Sequence[Found]) -> tuple[Mention, ...]:
        if not found:
            return ()
        if folded.moved:
            found = [Found(name, *folded.original_span(start, end)) for name, start, end in found]
        ordinal = Lists(answer, found[-1].start).ordinal
        brands = self._brands
        return tuple([Mention(brands[name], start, end, ordinal(start)) for name, start, end in found])


@lru_cache(maxsize=_DETECTORS_KEPT)
def detector_of(brands: tuple[Brand, ...]) -> Detector:
    """The detector of `brands`; kept, because a run asks for the same one again and again.

    Raises:
        InvalidField: as `check_brands`.
    """
    return Detector(check_brands(brands))
