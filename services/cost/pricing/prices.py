"""Prices of models as integers, and what a call costs by them.

Rates are nano-USD per million tokens, so a rate of 0.15 USD per million is 150,000,000. Amounts are nano-USD. Each part
of a price is rounded half-even by itself and the total is the sum of the parts, so parts always add up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.cost.usage import Usage

TOKENS_PER_RATE = 1_000_000
DAY_US = 86_400_000_000

_HALF: Final = TOKENS_PER_RATE // 2

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

    def in_order(self) -> list[int]:
        """The rates in the order of the fields."""
        return [
            self.input,
            self.cache_read,
            self.cache_write_5m,
            self.cache_write_1h,
            self.input_audio,
            self.output,
            self.reasoning,
            self.output_audio,
        ]

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
    step_nano_usd: int = 0
    """A fee for every step of an automation."""

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a call with so many input tokens."""
        rates = self.tiers[0].rates
        for tier in self.tiers[1:]:
            if input_tokens < tier.input_tokens_from:
                break
            rates = tier.rates
        return rates


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
    """The version of the catalogue that the price is from, for example "2026-11-21"."""
    tariffs: tuple[DatedTariff, ...]
    """Of the standard service tier. A later one takes precedence; the first holds where no other does."""
    service_tiers: Mapping[str, tuple[DatedTariff, ...]] = field(default_factory=dict)
    """Of the other service tiers by name; here nothing holds before the first begins."""

    def at(self, at_us: int, service_tier: str = "") -> Tariff | None:
        """The tariff in force at a time, microseconds UTC; None where the service tier has no price then.

        A tier is never taken for the standard one: what "priority" costs more, or "batch" less, is not known.
        """
        dated = self.dated_at(at_us, service_tier)
        return None if dated is None else dated.tariff

    def dated_at(self, at_us: int, service_tier: str = "") -> DatedTariff | None:
        """As `at`, with the time from which the tariff holds."""
        if service_tier:
            tariffs = self.service_tiers.get(service_tier, ())
        else:
            tariffs = self.tariffs
            if len(tariffs) == 1:
                return tariffs[0]
        for dated in reversed(tariffs):
            if dated.holds_at(at_us):
                return dated
        return None if service_tier else tariffs[0]

    def changes(self, service_tier: str, after_us: int, until_us: int) -> list[int]:
        """The times after one, up to another, at which another tariff can come into force."""
        if not service_tier and len(self.tariffs) == 1:
            return []
        times_us = set()
        for dated in self.service_tiers.get(service_tier, ()) if service_tier else self.tariffs:
            if dated.starts_us is not None:
                times_us.add(dated.starts_us)
            for midnight_us in range(after_us - after_us % DAY_US, until_us + 1, DAY_US):
                times_us.update(midnight_us + time_us for time_us in dated.daily_us or ())
        return sorted(at_us for at_us in times_us if after_us < at_us <= until_us)


class Quote(NamedTuple):
    """The price of a call."""

    tariff: Tariff
    version: str
    """Where it is from: the version of a catalogue, or the id of an override."""


class Breakdown(NamedTuple):
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
    steps: int = 0

    def parts(self) -> dict[str, int]:
        """The parts that are not 0, by name."""
        return {name: amount for name, amount in zip(_PART_NAMES, self, strict=True) if amount}

    @property
    def total_nano_usd(self) -> int:
        """The price of the call: the sum of the parts."""
        return sum(self)


_PART_NAMES: Final = Breakdown._fields


def price(usage: Usage, tariff: Tariff) -> Breakdown:
    """What the usage costs. The counts must have passed `check_usage`.

    The tier is the one that the total of input tokens reaches, and it prices every token of the call (a "cliff").
    """
    rates = tariff.rates_for(usage.input_tokens)
    cache_read = usage.cache_read_tokens
    write_5m = usage.cache_write_5m_tokens
    write_1h = usage.cache_write_1h_tokens
    audio_in = usage.input_audio_tokens
    reasoning = usage.reasoning_tokens
    audio_out = usage.output_audio_tokens
    plain_in = usage.input_tokens - cache_read - write_5m - write_1h - audio_in
    plain_out = usage.output_tokens - reasoning - audio_out
    # Most kinds of most calls are 0, and every event comes through here.
    return Breakdown(
        _amount(plain_in * rates.input) if plain_in else 0,
        _amount(cache_read * rates.cache_read) if cache_read else 0,
        _amount(write_5m * rates.cache_write_5m) if write_5m else 0,
        _amount(write_1h * rates.cache_write_1h) if write_1h else 0,
        _amount(audio_in * rates.input_audio) if audio_in else 0,
        _amount(plain_out * rates.output) if plain_out else 0,
        _amount(reasoning * rates.reasoning) if reasoning else 0,
        _amount(audio_out * rates.output_audio) if audio_out else 0,
        tariff.request_nano_usd,
        usage.steps * tariff.step_nano_usd if usage.steps else 0,
    )


class WorstCase(NamedTuple):
    """The most that a call can cost, nano-USD."""

    input: int
    output: int
    fees: int
    rounding: int
    """What rounding the parts of a call can add."""

    @property
    def total_nano_usd(self) -> int:
        """What to reserve."""
        return self.input + self.output + self.fees + self.rounding


def worst_case(input_tokens_max: int, output_tokens_max: int, tariff: Tariff, steps_max: int = 0) -> WorstCase:
    """The most that a call within these limits can cost.

    Every token is of its dearest kind, in the dearest tier that the input can reach, and fees are added. A request for
    several answers counts its output limit once for each.
    """
    input_rate = output_rate = 0
    for tier in tariff.tiers:
        if tier.input_tokens_from <= input_tokens_max:
            input_rate = max(input_rate, tier.rates.highest_input)
            output_rate = max(output_rate, tier.rates.highest_output)
    input_exact, output_exact = input_tokens_max * input_rate, output_tokens_max * output_rate
    exact = input_exact + output_exact
    whole_input, whole_output = input_exact // TOKENS_PER_RATE, output_exact // TOKENS_PER_RATE
    rounding = -(-exact // TOKENS_PER_RATE) + _ROUNDING_RESERVE_NANO_USD - whole_input - whole_output if exact else 0
    return WorstCase(whole_input, whole_output, tariff.request_nano_usd + steps_max * tariff.step_nano_usd, rounding)


def _amount(exact: int) -> int:
    """Nano-USD of tokens times their rate, rounded to the nearest, a tie to the even one."""
    quotient, remainder = divmod(exact, TOKENS_PER_RATE)
    if remainder > _HALF or (remainder == _HALF and quotient & 1):
        return quotient + 1
    return quotient
