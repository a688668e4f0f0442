"""The prices that each project is priced by: its overrides over the catalogue."""

from typing import Any, Final

import orjson
from sqlalchemy import Connection, RowMapping, bindparam, select

from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.overrides import Override, ProjectPrices
from services.cost.pricing.prices import Rates, Tariff, Tier
from services.cost.store.tables import price_overrides

PROJECTS_CACHED_MAX: Final = 1_000
"""Projects with overrides whose prices are remembered; one more makes the cache forget them all and begin again."""

_OVERRIDES: Final = select(price_overrides).where(price_overrides.c.project_id == bindparam("project_id"))


class PriceBooks:
    """The prices of each project in its revision; a project without overrides has the catalogue itself."""

    def __init__(self, catalogue: PriceSource) -> None:
        self._catalogue = catalogue
        self._cached: dict[str, tuple[int, ProjectPrices]] = {}

    def of_project(self, connection: Connection, project_id: str, revision: int) -> PriceSource:
        """The prices of a project whose revision the transaction has read. Safe in any thread."""
        if revision == 0:
            return self._catalogue
        cached = self._cached.get(project_id)
        if cached is None or cached[0] != revision:
            found = overrides_of(connection, project_id)
            if len(self._cached) >= PROJECTS_CACHED_MAX:
                self._cached.clear()
            cached = self._cached[project_id] = (revision, ProjectPrices(self._catalogue, found))
        return cached[1]


def overrides_of(connection: Connection, project_id: str) -> list[Override]:
    """Every override of a project, ended ones too."""
    return [override_of(row) for row in connection.execute(_OVERRIDES, {"project_id": project_id}).mappings()]


def override_of(row: RowMapping) -> Override:
    """A row of `price_overrides`."""
    tiers = tuple([Tier(start, Rates(*rates)) for start, rates in orjson.loads(row["tiers"])])
    return Override(
        override_id=row["override_id"],
        project_id=row["project_id"],
        provider=row["provider"],
        model=row["model"],
        service_tier=row["service_tier"],
        tariff=Tariff(tiers, row["request_nano_usd"], row["step_nano_usd"]),
        effective_us=row["effective_us"],
        created_us=row["created_us"],
        ended_us=row["ended_us"],
        created_revision=row["created_revision"],
        ended_revision=row["ended_revision"],
    )


def row_of_override(override: Override) -> dict[str, Any]:
    """A row for `price_overrides`. Tiers are a JSON list of `[input tokens from, rates in the order of Rates]`."""
    tariff = override.tariff
    tiers = [[tier.input_tokens_from, tier.rates.in_order()] for tier in tariff.tiers]
    return {
        "override_id": override.override_id,
        "project_id": override.project_id,
        "provider": override.provider,
        "model": override.model,
        "service_tier": override.service_tier,
        "tiers": orjson.dumps(tiers).decode(),
        "request_nano_usd": tariff.request_nano_usd,
        "step_nano_usd": tariff.step_nano_usd,
        "effective_us": override.effective_us,
        "created_us": override.created_us,
        "ended_us": override.ended_us,
        "created_revision": override.created_revision,
        "ended_revision": override.ended_revision,
    }
