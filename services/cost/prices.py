"""Prices of models as integers, and what a call costs by them.

Rates are nano-USD per million tokens, so a rate of 0.15 USD per million is 150,000,000. Amounts are nano-USD. Each part
of a price is rounded half-even by itself and the total is the sum of the parts, so parts always add up.
"""

from bisect import bisect_right
from dataclasses import dataclass, fields
from typing import Final

from services.cost.usage import Usage

TOKENS_PER_RATE = 1_000_000
DAY_US = 86_400_000_000

_PARTS_MAX = 8
# Each of the parts can be rounded up by half a nano-USD; a worst case has to cover that.
_ROUNDING_RESERVE_NANO_USD = _PARTS_MAX // 2


@dataclass(frozen=True, slots=True)
class Rates:
    """What each kind of token costs, nano-USD per million; a kind without a price of its own carries its parent's."""

    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    input_audio: int
    output: int
    reasoning: int
    output_audio: int

    @property
    def highest_input(self) -> int:
        """The dearest way to be an input token."""
        return max(self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h, self.input_audio)

    @property
    def highest_output(self) -> int:
        """The dearest way to be an output token."""
        return max(self.output, self.reasoning, self.output_audio)


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates of calls with at least `input_tokens_from` input tokens: they hold for all tokens of such a call."""

    input_tokens_from: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Tariff:
    """All tiers of a price at one time. The first tier begins at 0 and the beginnings rise."""

    tiers: tuple[Tier, ...]
    request_nano_usd: int = 0
    """A fee for every call."""

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a call with so many input tokens."""
        tiers = self.tiers
        if len(tiers) == 1:
            return tiers[0].rates
        return tiers[bisect_right(tiers, input_tokens, key=lambda tier: tier.input_tokens_from) - 1].rates


@dataclass(frozen=True, slots=True)
class DatedTariff:
    """A tariff and when it holds. Both conditions have to be met; None is always met."""

    tariff: Tariff
    starts_us: int | None = None
    """From this time on, microseconds UTC."""
    daily_us: tuple[int, int] | None = None
    """From the first to before the second time of each UTC day, in microseconds after midnight; may span midnight."""

    def holds_at(self, at_us: int) -> bool:
        """Whether the tariff is in force at a time."""
        if self.starts_us is not None and at_us < self.starts_us:
            return False
        if self.daily_us is None:
            return True
        start_us, end_us = self.daily_us
        time_us = at_us % DAY_US
        if end_us < start_us:
            return time_us >= start_us or time_us < end_us
        return start_us <= time_us < end_us


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price of one model through time. Never changes: a new price comes with a new version of the catalogue."""

    provider: str
    model: str
    """The catalogue's own name of the model."""
    version: str
    """The version of the catalogue that the price is from, for example "genai-prices-0.2.3"."""
    tariffs: tuple[DatedTariff, ...]
    """A later one takes precedence; the first holds where no other does."""

    def at(self, at_us: int) -> Tariff:
        """The tariff in force at a time, microseconds UTC."""
        if len(self.tariffs) == 1:
            return self.tariffs[0].tariff
        for dated in reversed(self.tariffs):
            if dated.holds_at(at_us):
                return dated.tariff
        return self.tariffs[0].tariff


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What each part of a call costs, nano-USD."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    output: int = 0
    reasoning: int = 0
    output_audio: int = 0
    request: int = 0

    def parts(self) -> dict[str, int]:
        """The parts that are not 0, by name."""
        return {name: amount for name in _PART_NAMES if (amount := getattr(self, name))}

    @property
    def total_nano_usd(self) -> int:
        """The price of the call: the sum of the parts."""
        return (
            self.input
            + self.cache_read
            + self.cache_write_5m
            + self.cache_write_1h
            + self.input_audio
            + self.output
            + self.reasoning
            + self.output_audio
            + self.request
        )


_PART_NAMES: Final = tuple(field.name for field in fields(Breakdown))


def price(usage: Usage, tariff: Tariff) -> Breakdown:
    """What the usage costs. The counts must have passed `check_usage`.

    The tier is the one that the total of input tokens reaches, and it prices every token of the call (a "cliff").
    """
    rates = tariff.rates_for(usage.input_tokens)
    return Breakdown(
        input=_amount(usage.plain_input_tokens, rates.input),
        cache_read=_amount(usage.cache_read_tokens, rates.cache_read),
        cache_write_5m=_amount(usage.cache_write_5m_tokens, rates.cache_write_5m),
        cache_write_1h=_amount(usage.cache_write_1h_tokens, rates.cache_write_1h),
        input_audio=_amount(usage.input_audio_tokens, rates.input_audio),
        output=_amount(usage.plain_output_tokens, rates.output),
        reasoning=_amount(usage.reasoning_tokens, rates.reasoning),
        output_audio=_amount(usage.output_audio_tokens, rates.output_audio),
        request=tariff.request_nano_usd,
    )


def worst_case(input_tokens_max: int, output_tokens_max: int, tariff: Tariff) -> int:
    """The most that a call within these limits can cost, nano-USD.

    Every token is of its dearest kind, in the dearest tier that the input can reach, and fees are added. A request for
    several answers counts its output limit once for each.
    """
    reachable = [tier.rates for tier in tariff.tiers if tier.input_tokens_from <= input_tokens_max]
    input_rate = max(rates.highest_input for rates in reachable)
    output_rate = max(rates.highest_output for rates in reachable)
    exact = input_tokens_max * input_rate + output_tokens_max * output_rate
    if exact == 0:
        return tariff.request_nano_usd
    return -(-exact // TOKENS_PER_RATE) + _ROUNDING_RESERVE_NANO_USD + tariff.request_nano_usd


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient rounded to the nearest integer, a tie to the even one. The denominator is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def _amount(tokens: int, rate: int) -> int:
    return divide_half_even(tokens * rate, TOKENS_PER_RATE) if tokens else 0
