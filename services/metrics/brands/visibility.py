"""How visible brands are in the answers of a run: rates, shares and positions, each with its interval.

Mention rate = answers that mention / answers. Share of voice has two definitions, which differ where one brand is named
many times in few answers: by mentions and by presence. Position = rank of the first mention among the tracked brands,
over the answers that mention the brand; it stands beside the rate of those that don't.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from services.metrics.brands.observations import NOT_JUDGED, Indices, Observations
from services.metrics.intervals import (
    UNKNOWN,
    Clusters,
    Interval,
    Numbers,
    mean_error,
    normal_quantile,
    t_interval,
    wilson_interval,
)
from services.metrics.summaries import Estimate, Series, SeriesKind, summarize
from services.runtime.errors import ResourceExhausted
from services.runtime.stopping import check_stopped

FIGURES_MAX: Final = 10_000
"""Brands, prompts and models that one summary gives figures for, counted with each other."""
CO_MENTIONS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one brand over some answers; the contract says what each is."""

    answers: int
    missing: int
    mentioning: int
    mentions: int
    mention_rate: Estimate
    absence_rate: Estimate
    average_position: Estimate
    share_of_mentions: Estimate
    share_of_presence: Estimate
    citation_rate: Estimate
    sentiment: Estimate
    positions: tuple[int, ...]


class OfModel(NamedTuple):
    """Figures of a brand in the answers of one model."""

    model: int
    figures: Figures


class OfPrompt(NamedTuple):
    """Figures of a brand in the answers to one prompt."""

    prompt: int
    figures: Figures
    models: tuple[OfModel, ...]


class CoMention(NamedTuple):
    """Another brand in the same answers."""

    brand: int
    answers: int
    rate: Estimate


class Change(NamedTuple):
    """How a mention rate differs from an earlier one."""

    baseline: Estimate
    difference: float | None
    interval: Interval
    within_noise: bool


@dataclass(frozen=True, slots=True)
class Visibility:
    """Everything about one brand."""

    figures: Figures
    prompts: tuple[OfPrompt, ...]
    models: tuple[OfModel, ...]
    co_mentions: tuple[CoMention, ...]
    change: Change | None


def summarize_brands(
    run: Observations, baseline: Observations | None, sizes: tuple[int, int, int], confidence: float
) -> list[Visibility]:
    """The visibility of every brand; `sizes` are the numbers of brands, prompts and models. Runs in a worker process.

    Raises:
        InvalidField: the columns don't fit together.
        ResourceExhausted: there would be too many figures.
    """
    brands, prompts, models = sizes
    run.check("run", brands=brands, prompts=prompts, models=models)
    if baseline is not None:
        baseline.check("baseline", brands=brands, prompts=prompts, models=models)
    _check_size(run, sizes)
    # With all brands' intervals wide enough to hold together, one of many brands is not taken for changed by chance.
    joint = 1.0 - (1.0 - confidence) / brands
    return [
        _BrandInRun(run, brand, confidence).visibility(
            models, None if baseline is None else _BrandInRun(baseline, brand, joint), joint
        )
        for brand in range(brands)
    ]


def _check_size(run: Observations, sizes: tuple[int, int, int]) -> None:
    brands, prompts, models = sizes
    by_prompt = run.found_brand * prompts + run.prompts[run.found_in]
    by_model = by_prompt * models + run.models[run.found_in]
    count = brands * (1 + models) + len(np.unique(by_prompt)) + len(np.unique(by_model))
    if count > FIGURES_MAX:
        raise ResourceExhausted(
            "LIMIT_REACHED",
            f"the summary would have {count:,} entries by brand, prompt and model, at most {FIGURES_MAX:,}; "
            "track fewer brands, or export the results instead",
        )


class _BrandInRun:
    """One brand in the answers of one run."""

    def __init__(self, run: Observations, brand: int, confidence: float) -> None:
        self._run = run
        self._brand = brand
        self._confidence = confidence
        self._mentions = run.column(brand, run.found_mentions)
        self._positions = run.column(brand, run.found_position)
        self._citations = run.column(brand, run.found_citations)
        self._sentiment = run.column(brand, run.found_sentiment, NOT_JUDGED)

    def visibility(self, models: int, baseline: _BrandInRun | None, joint: float) -> Visibility:
        """Everything about it."""
        return Visibility(
            figures=self._figures(np.arange(len(self._run.prompts))),
            prompts=tuple(self._by_prompt()),
            models=tuple(
                OfModel(model, self._figures(np.flatnonzero(self._run.models == model))) for model in range(models)
            ),
            co_mentions=tuple(self._co_mentions()),
            change=None if baseline is None else self._change(baseline, joint),
        )

    def _by_prompt(self) -> Iterator[OfPrompt]:
        found = (self._mentions > 0) | (self._citations > 0)
        for prompt in np.unique(self._run.prompts[found]).tolist():
            cells = np.flatnonzero(self._run.prompts == prompt)
            models = [
                OfModel(model, self._figures(cells[self._run.models[cells] == model]))
                for model in np.unique(self._run.models[cells[found[cells]]]).tolist()
            ]
            yield OfPrompt(prompt, self._figures(cells), tuple(models))

    def _figures(self, cells: Indices) -> Figures:
        check_stopped()
        run = self._run
        answers = cells[run.answered[cells]]
        missing = len(cells) - len(answers)
        clusters = run.clusters_of(answers)
        mentions = self._mentions[answers]
        named = mentions > 0
        naming = answers[named]
        judged = answers[self._sentiment[answers] != NOT_JUDGED]
        rate = self._rate(named, clusters, missing)
        return Figures(
            answers=len(answers),
            missing=missing,
            mentioning=len(naming),
            mentions=int(mentions.sum()),
            mention_rate=rate,
            absence_rate=_opposite(rate),
            average_position=self._mean(self._positions[naming], run.clusters_of(naming), 1.0, None),
            share_of_mentions=share(mentions, run.all_mentions[answers], clusters, self._confidence),
            share_of_presence=share(named.astype(np.float64), run.all_presences[answers], clusters, self._confidence),
            citation_rate=self._rate(self._citations[answers] > 0, clusters, missing),
            sentiment=self._mean(self._sentiment[judged], run.clusters_of(judged), -1.0, 1.0),
            positions=tuple(self._positions[naming].astype(np.int64).tolist()),
        )

    def _rate(
        self, happened: np.ndarray[tuple[int], np.dtype[np.bool_]], clusters: Clusters | None, missing: int = 0
    ) -> Estimate:
        values = happened.astype(np.float64).tobytes()
        series = Series("", SeriesKind.RATE, values, _packed(clusters), missing)
        return summarize(series, self._confidence)[0]

    def _mean(self, values: Numbers, clusters: Clusters | None, low: float, high: float | None) -> Estimate:
        series = Series("", SeriesKind.MEAN, values.tobytes(), _packed(clusters), minimum=low, maximum=high)
        return summarize(series, self._confidence)[0]

    def _co_mentions(self) -> Iterator[CoMention]:
        run = self._run
        here = self._mentions > 0
        beside = run.found_brand[here[run.found_in] & (run.found_mentions > 0) & (run.found_brand != self._brand)]
        brands, counts = np.unique(beside, return_counts=True)
        order = np.lexsort((brands, -counts))[:CO_MENTIONS_MAX]
        answers = np.flatnonzero(here)
        for brand, count in zip(brands[order].tolist(), counts[order].tolist(), strict=True):
            together = run.column(brand, run.found_mentions)[answers] > 0
            yield CoMention(brand, count, self._rate(together, run.clusters_of(answers)))

    def mention_rate(self, confidence: float) -> Estimate:
        """The mention rate over all answers."""
        answers = np.flatnonzero(self._run.answered)
        values = (self._mentions[answers] > 0).astype(np.float64).tobytes()
        clusters = _packed(self._run.clusters_of(answers))
        missing = len(self._run.prompts) - len(answers)
        return summarize(Series("", SeriesKind.RATE, values, clusters, missing), confidence)[0]

    def _change(self, baseline: _BrandInRun, joint: float) -> Change:
        now, then = self.mention_rate(joint), baseline.mention_rate(joint)
        interval = difference_interval(now, then)
        if now.value is None or then.value is None:
            return Change(then, None, UNKNOWN, within_noise=True)
        low, high = interval.low, interval.high
        within = low is None or high is None or low <= 0.0 <= high
        return Change(baseline.mention_rate(self._confidence), now.value - then.value, interval, within)


def share(parts: Numbers, wholes: Numbers, clusters: Clusters | None, confidence: float) -> Estimate:
    """The sum of `parts` over the sum of `wholes`, with the interval of a ratio: t on the linearised ratio.

    W. G. Cochran, Sampling Techniques (1977), section 6.3, with clustered errors; Wilson's interval where all parts are
    nothing or everything, for which the linearised ratio shows no spread.
    """
    method = "ratio" if clusters is None else "ratio-clustered"
    total = math.fsum(wholes)
    count = len(parts)
    if total == 0.0:
        return Estimate(None, UNKNOWN, method, count, 0, 0, withheld_reason="no tracked brand is mentioned")
    value = math.fsum(parts) / total
    error = mean_error(value + (parts - value * wholes) * (count / total), clusters)
    if error.standard_error == 0.0:
        interval = wilson_interval(value, max(1, error.clusters), normal_quantile((1.0 + confidence) / 2.0))
    else:
        interval = t_interval(error, confidence)
    low = None if interval.low is None else max(0.0, interval.low)
    high = None if interval.high is None else min(1.0, interval.high)
    return Estimate(value, Interval(low, high), method, count, error.clusters, 0)


def difference_interval(now: Estimate, then: Estimate) -> Interval:
    """The interval of the difference of two independent rates, from their own intervals.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), method 10.
    """
    ends = (now.value, now.interval.low, now.interval.high, then.value, then.interval.low, then.interval.high)
    if any(end is None for end in ends):
        return UNKNOWN
    value, low, high, value_then, low_then, high_then = (end for end in ends if end is not None)
    difference = value - value_then
    return Interval(
        difference - math.hypot(value - low, high_then - value_then),
        difference + math.hypot(high - value, value_then - low_then),
    )


def _opposite(rate: Estimate) -> Estimate:
    return replace(
        rate,
        value=None if rate.value is None else 1.0 - rate.value,
        interval=_mirrored(rate.interval),
        if_missing=_mirrored(rate.if_missing),
    )


def _mirrored(interval: Interval) -> Interval:
    return Interval(
        None if interval.high is None else 1.0 - interval.high, None if interval.low is None else 1.0 - interval.low
    )


def _packed(clusters: Clusters | None) -> bytes:
    return b"" if clusters is None else clusters.tobytes()
