"""Prices that a project states for itself; they take precedence over the catalogue.

An override is never changed. A later one supersedes it from its own start on, and deleting it ends it: what was used
before keeps the price that held then. So prices of the past can be told at any time, and a repricing can be repeated.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.prices import Quote, Tariff
from services.runtime.errors import InvalidField

ANY_MODEL: Final = "*"
"""In place of a model: every model of the provider without an override of its own."""
SERVICE_TIERS: Final = ("batch", "fast", "flex", "performance", "priority", "scale")
"""What the providers of the catalogue sell beside the standard tier, by their references."""
DISTANCE_MAX_US: Final = 3_660 * 86_400_000_000
"""How far from now an override may begin, to either side: ten years."""


@dataclass(frozen=True, slots=True)
class Override:
    """A project's own price of a model, or of all models of a provider, in one service tier. Times are us UTC."""

    override_id: str
    project_id: str
    provider: str
    model: str
    service_tier: str
    tariff: Tariff
    effective_us: int
    """It holds for calls from this time on."""
    created_us: int
    ended_us: int | None
    """It holds for calls before this time; None while it is not deleted."""
    created_revision: int
    """The project's revision of prices that it made."""
    ended_revision: int | None
    """The revision that its deletion made."""

    def holds_at(self, at_us: int) -> bool:
        """Whether a call at a time can be priced by it."""
        return self.effective_us <= at_us and (self.ended_us is None or at_us < self.ended_us)

    def as_of(self, revision: int) -> "Override | None":
        """The override as it was in an earlier revision of the project's prices; None where it was not there."""
        if self.created_revision > revision:
            return None
        if self.ended_revision is not None and self.ended_revision > revision:
            return replace(self, ended_us=None, ended_revision=None)
        return self


class ProjectPrices:
    """The prices of one project: its overrides, and the catalogue where none holds."""

    def __init__(self, catalogue: PriceSource, overrides: Iterable[Override]) -> None:
        self._catalogue = catalogue
        self._overrides: dict[tuple[str, str, str], list[Override]] = {}
        latest_first = sorted(overrides, key=lambda one: (one.effective_us, one.created_revision), reverse=True)
        for override in latest_first:
            key = (override.provider, override.model, override.service_tier)
            self._overrides.setdefault(key, []).append(override)

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        """See PriceSource.name_of."""
        return self._catalogue.name_of(provider, model)

    def quote(self, provider: str, models: Sequence[str], service_tier: str, at_us: int) -> Quote | None:
        """See PriceSource.quote. An override of a model's name is tried before one of all models of its provider."""
        override = self.override(provider, models, service_tier, at_us)
        if override is not None:
            return Quote(override.tariff, override.override_id)
        return self._catalogue.quote(provider, models, service_tier, at_us)

    def override(self, provider: str, models: Sequence[str], service_tier: str, at_us: int) -> Override | None:
        """The override that holds for a call; None where the catalogue decides."""
        for override in self._of_call(provider, models, service_tier):
            if override.holds_at(at_us):
                return override
        return None

    def changes(self, provider: str, model: str, service_tier: str, after_us: int, until_us: int) -> Sequence[int]:
        """See PriceSource.changes."""
        times_us = set(self._catalogue.changes(provider, model, service_tier, after_us, until_us))
        for override in self._of_call(provider, (model,), service_tier):
            times_us.update(at_us for at_us in (override.effective_us, override.ended_us) if at_us is not None)
        return sorted(at_us for at_us in times_us if after_us < at_us <= until_us)

    def _of_call(self, provider: str, models: Sequence[str], service_tier: str) -> Iterator[Override]:
        """The overrides that can price a call, at whatever time, those that take precedence first."""
        names = []
        owner = provider.lower()
        for model in models:
            owner, known_as = self._catalogue.name_of(provider, model)
            names += [model.lower(), known_as]
        for name in (*names, ANY_MODEL):
            yield from self._overrides.get((owner, name, service_tier), ())


def check_start(effective_us: int, now_us: int, field: str) -> int:
    """A start within ten years of now; InvalidField names `field`."""
    if abs(effective_us - now_us) > DISTANCE_MAX_US:
        raise InvalidField(field, "An override begins at most ten years from now, to either side.")
    return effective_us


def check_service_tier(name: str, field: str, *, catalogued: bool) -> str:
    """A tier that can be met; InvalidField names `field` for one that no provider of the catalogue sells.

    What the tiers of a provider outside of the catalogue are called is up to the provider.
    """
    if name and catalogued and name not in SERVICE_TIERS:
        tiers = ", ".join(SERVICE_TIERS)
        raise InvalidField(field, f"{name!r} is no service tier; there are {tiers}, and none for the standard one.")
    return name


def check_tiers(starts: Sequence[int], field: str) -> None:
    """Tiers begin at 0 and rise; else InvalidField names `field`."""
    if not starts or starts[0] != 0 or any(first >= second for first, second in pairwise(starts)):
        raise InvalidField(field, "The first tier begins at 0 input tokens, and each further one above the one before.")
