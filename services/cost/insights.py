"""Anomalies of a project's spending: which series are watched, and how their hours are judged.

Watched are the hours (UTC) of the whole project, of its providers and of its models, those that spent most in the last
week. An hour is judged some time after its end, by the weeks before it, and again each hour until it is two days old:
usage that is reported late can make an anomaly of it. What was told stays as it was told; usage that comes still later
is history for other hours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.cost.anomalies import Detector
from services.cost.spend import SpendFilter

HOUR_US: Final = 3_600_000_000
HISTORY_HOURS: Final = 6 * 168
"""What a series is judged by."""
LOOK_BACK_HOURS: Final = 48
"""How far back hours are judged, for usage that is reported late, and after a stop of the service."""


@dataclass(frozen=True, slots=True)
class AnomalyDraft:
    """An anomaly that was found; money is nano-USD, the hour's beginning microseconds UTC."""

    provider: str
    model: str
    start_us: int
    observed: int
    expected: int
    lower: int
    upper: int
    score: float

    @property
    def impact(self) -> int:
        """Observed minus expected."""
        return self.observed - self.expected

    @property
    def series(self) -> str:
        """The series as people write it: project, a provider, or provider/model."""
        return "/".join(filter(None, (self.provider, self.model))) or "project"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An anomaly on record."""

    sequence: int
    created_us: int
    found: AnomalyDraft


@dataclass(frozen=True, slots=True)
class AnomalyQuery:
    """Which anomalies are listed: hours from `start_us` to before `end_us`. Empty text and 0 take all."""

    start_us: int
    end_us: int
    provider: str
    model: str
    impact_min: int


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What a search for anomalies may take, and what it tells."""

    max_series: int
    """Series of a project, beside the project itself."""
    min_impact_nano_usd: int
    """Smaller anomalies, and series that spend less in a week, are left out."""
    max_kept: int
    """Anomalies kept of a project; the oldest go first."""


@dataclass(frozen=True, slots=True)
class HourlySpend:
    """What the hours of one series cost, nano-USD, from `start_us` on."""

    of: SpendFilter
    start_us: int
    hours: list[int]


def series_to_watch(spent: Iterable[tuple[str, str, int]], limits: SearchLimits) -> list[SpendFilter]:
    """The whole project, and the providers and models that spent most; `spent` is (provider, model, nano-USD)."""
    totals: dict[tuple[str, str], int] = {}
    for provider, model, nano_usd in spent:
        for key in ((provider, ""), (provider, model)):
            totals[key] = totals.get(key, 0) + nano_usd
    large = [key for key, nano_usd in totals.items() if nano_usd >= max(1, limits.min_impact_nano_usd)]
    large.sort(key=lambda key: (-totals[key], key))
    return [SpendFilter(), *(SpendFilter(provider, model) for provider, model in large[: limits.max_series])]


def anomalies_of(spend: HourlySpend, judged_from_us: int, limits: SearchLimits) -> Iterator[AnomalyDraft]:
    """The anomalies among the hours from `judged_from_us` on that are worth telling.

    Hours before the first spend are no history. What is unusual in a model may be so in the project too: both are told.
    """
    detector = Detector()
    for hour in range(_first_spend(spend.hours), len(spend.hours)):
        observed = spend.hours[hour]
        start_us = spend.start_us + hour * HOUR_US
        judged = detector.judge(start_us / 1e6, float(observed))
        if not judged.anomaly or start_us < judged_from_us:
            continue
        draft = AnomalyDraft(
            provider=spend.of.provider,
            model=spend.of.model,
            start_us=start_us,
            observed=observed,
            expected=max(0, round(judged.expected)),
            lower=max(0, round(judged.lower)),
            upper=max(0, round(judged.upper)),
            score=judged.score,
        )
        if abs(draft.impact) >= limits.min_impact_nano_usd:
            yield draft


def _first_spend(hours: Sequence[int]) -> int:
    return next((hour for hour, nano_usd in enumerate(hours) if nano_usd), len(hours))
