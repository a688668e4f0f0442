"""Which price holds for a project: its overrides over the catalogue, at any time and in any revision."""

from dataclasses import replace

import pytest

from services.cost.pricing.catalogue import Catalogue
from services.cost.pricing.overrides import (
    ANY_MODEL,
    DISTANCE_MAX_US,
    Override,
    ProjectPrices,
    check_start,
    check_tiers,
)
from services.cost.pricing.prices import Rates, Tariff, Tier
from services.runtime.errors import InvalidField

CATALOGUE = Catalogue.load()
NOW_US = 1_795_000_000_000_000


def override(
    number: int, *, model: str = "gpt-4o", tier: str = "", start_us: int = 0, ended: tuple[int, int] | None = None
) -> Override:
    """Override `ovr_<number>` with rates of that number, made in that revision; `ended` is its time and revision."""
    tariff = Tariff((Tier(0, Rates(*[number] * 8)),))
    ended_us, ended_revision = ended or (None, None)
    return Override(
        f"ovr_{number}", "prj_1", "openai", model, tier, tariff, start_us, 0, ended_us, number, ended_revision
    )


def version(*overrides: Override, models: tuple[str, ...] = ("gpt-4o",), tier: str = "", at_us: int = NOW_US) -> str:
    quote = ProjectPrices(CATALOGUE, overrides).quote("OpenAI", models, tier, at_us)
    return "" if quote is None else quote.version


def test_an_override_holds_from_its_start_on() -> None:
    one = override(1, start_us=NOW_US)
    assert version(one, at_us=NOW_US - 1) == CATALOGUE.version
    assert version(one, at_us=NOW_US) == "ovr_1"


def test_a_later_start_supersedes_and_at_one_start_the_later_made() -> None:
    first, second, third = override(1, start_us=5), override(2, start_us=9), override(3, start_us=9)
    assert version(second, first, at_us=8) == "ovr_1"
    assert version(second, first, third, at_us=9) == "ovr_3"


def test_an_ended_override_holds_for_what_was_before() -> None:
    older, ended = override(1, start_us=0), override(2, start_us=10, ended=(20, 3))
    assert [version(older, ended, at_us=at_us) for at_us in (9, 10, 19, 20)] == ["ovr_1", "ovr_2", "ovr_2", "ovr_1"]


def test_dated_names_and_answered_names_find_the_override() -> None:
    one = override(1)
    assert version(one, models=("gpt-4o-2024-08-06",)) == "ovr_1"
    # What answered is in the catalogue; what was asked for has a price of the project's own.
    assert version(override(2, model="my-alias"), models=("gpt-4o-mini", "my-alias")) == "ovr_2"
    assert version(one, models=("gpt-4o-mini",)) == CATALOGUE.version


def test_a_name_comes_before_all_models_of_the_provider() -> None:
    every, one = override(1, model=ANY_MODEL, start_us=9), override(2)
    assert version(every, one) == "ovr_2"
    assert version(every, one, models=("home-made",)) == "ovr_1"


def test_an_override_prices_its_own_service_tier_only() -> None:
    assert version(override(1), tier="batch") == CATALOGUE.version
    assert version(override(1, tier="turbo"), tier="turbo") == "ovr_1"
    assert version(override(1), tier="turbo") == ""


def test_an_earlier_revision_knows_nothing_of_what_came_later() -> None:
    ended = override(2, ended=(20, 5))
    assert ended.as_of(1) is None
    assert ended.as_of(4) == replace(ended, ended_us=None, ended_revision=None)
    assert ended.as_of(5) == ended


@pytest.mark.parametrize("starts", [(), (1,), (0, 0), (0, 5, 4)])
def test_tiers_begin_at_0_and_rise(starts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidField):
        check_tiers(starts, "override.tiers")


def test_a_start_is_within_ten_years() -> None:
    assert check_start(NOW_US - DISTANCE_MAX_US, NOW_US, "from") == NOW_US - DISTANCE_MAX_US
    with pytest.raises(InvalidField):
        check_start(NOW_US + DISTANCE_MAX_US + 1, NOW_US, "from")
