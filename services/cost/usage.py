"""What a call used and whom it is charged to."""

from enum import IntEnum
from typing import Final, NamedTuple

from services.runtime.errors import InvalidField

TOKENS_MAX = 1_000_000_000
"""More tokens than this in one call are a mistake of the reporter, not usage."""
STEPS_MAX = 100_000
"""More steps than this in one automation are a mistake of the reporter."""


class UsageSource(IntEnum):
    """Where the token counts come from; the numbers are those of the contract and of the stored rows."""

    UNKNOWN = 0
    MEASURED = 1
    ESTIMATED = 2


class Usage(NamedTuple):
    """What one call used: its tokens, and the steps of an automation.

    Totals include their parts: `input_tokens` includes cached and audio tokens, `output_tokens` includes reasoning and
    audio tokens.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    source: UsageSource = UsageSource.UNKNOWN
    steps: int = 0
    """Billable steps of an automation."""

    @property
    def plain_input_tokens(self) -> int:
        """Input tokens that are of no more specific kind."""
        return self.input_tokens - (
            self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens + self.input_audio_tokens
        )

    @property
    def plain_output_tokens(self) -> int:
        """Output tokens that are of no more specific kind."""
        return self.output_tokens - (self.reasoning_tokens + self.output_audio_tokens)

    def counts(self) -> tuple[int, int, int, int, int, int, int, int, int]:
        """The nine counts, in the order of COUNT_FIELDS."""
        return (
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            self.input_audio_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.output_audio_tokens,
            self.steps,
        )


NO_USAGE = Usage()

COUNT_FIELDS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "steps",
)


def check_usage(usage: Usage, field: str) -> None:
    """Refuse counts that cannot be: InvalidField names `field` and the count.

    A total smaller than its parts means that the reporter mixed up inclusive and exclusive counting; pricing it would
    bill a negative amount.
    """
    counts = usage.counts()
    if min(counts) < 0 or max(counts) > TOKENS_MAX:
        name, count = next(
            (name, count) for name, count in zip(COUNT_FIELDS, counts, strict=True) if not 0 <= count <= TOKENS_MAX
        )
        raise InvalidField(f"{field}.{name}", f"{count} is not between 0 and {TOKENS_MAX:,}.")
    if usage.steps > STEPS_MAX:
        raise InvalidField(f"{field}.steps", f"{usage.steps} is not between 0 and {STEPS_MAX:,}.")
    if usage.plain_input_tokens < 0:
        raise InvalidField(
            f"{field}.input_tokens",
            f"The parts add up to {usage.input_tokens - usage.plain_input_tokens} tokens, more than the total of "
            f"{usage.input_tokens}; the total has to include cached and audio tokens.",
        )
    if usage.plain_output_tokens < 0:
        raise InvalidField(
            f"{field}.output_tokens",
            f"The parts add up to {usage.output_tokens - usage.plain_output_tokens} tokens, more than the total of "
            f"{usage.output_tokens}; the total has to include reasoning and audio tokens.",
        )


_STANDARD_TIERS: Final = frozenset({"standard", "default", "on_demand"})


def tier_named(name: str) -> str:
    """A service tier as it is on record: the standard one, which providers name differently, has no name."""
    return "" if name in _STANDARD_TIERS else name


LEFT_OPEN: Final = "auto"
"""What an order says that leaves the tier to the provider; what answers is in one of OPEN_TIERS."""
OPEN_TIERS: Final = ("", "flex", "performance", "priority", "scale")
"""Tiers that a provider may choose by itself; "batch" and "fast" have to be asked for."""


def possible_tiers(asked: str) -> tuple[str, ...]:
    """The tiers in which an order can be answered, the standard one first where there are several."""
    return OPEN_TIERS if asked == LEFT_OPEN else (asked,)


class Attribution(NamedTuple):
    """What a call is charged to beside its project. Empty text means none."""

    user_id: str = ""
    key_id: str = ""
    run_id: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    """Sorted by key; keys are distinct."""
