"""Amounts of money: read from what a person types, and written for a person. Inside they are integers of nano-USD."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import typer
from google.protobuf.descriptor import Descriptor

from llmlab.api.common.v1 import usage_pb2
from llmlab.cli.contract import bounds_of

NANO_PER_USD = 1_000_000_000
DECIMALS = 9
USD_DIGITS_MAX = 12
"""More is no amount of money, and slow to compute with."""


def cost(amount: usage_pb2.Cost) -> str:
    """Formats a cost; calls without a price make it a lower bound or unknown, never free."""
    if amount.unpriced_calls and not amount.cost_nano_usd:
        return "unpriced"
    text = dollars(amount.cost_nano_usd)
    return f">= {text}" if amount.unpriced_calls else text


def dollars(nano_usd: int) -> str:
    """Formats nano-USD with as many digits as the amount deserves: $12.35, $0.0412, $0.000031, -$3.00."""
    if nano_usd < 0:
        return f"-{dollars(-nano_usd)}"
    amount = nano_usd / NANO_PER_USD
    if nano_usd == 0:
        return "$0"
    if amount >= 1:
        return f"${amount:,.2f}"
    if amount >= 0.01:
        return f"${amount:.4f}"
    digits = 1 - math.floor(math.log10(amount))  # two significant ones
    return f"${amount:.{min(digits, DECIMALS)}f}".rstrip("0")


def exact_usd(nano_usd: int) -> str:
    """Formats nano-USD as USD to the last digit, without a sign for the currency: 0.075, 15, 1,000,000."""
    return f"{Decimal(nano_usd) / NANO_PER_USD:,.{DECIMALS}f}".rstrip("0").rstrip(".")


def nano_usd_of(text: str) -> int:
    """Reads an amount such as 10usd, $10 or 0.5, exactly.

    Raises:
        typer.BadParameter: It is none, or has more than nine decimals.
    """
    number = text.strip().lower().removesuffix("usd").strip().removeprefix("$").strip().replace("_", "")
    try:
        usd = Decimal(number)
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite():
        raise typer.BadParameter(f"{text!r} is not an amount; write one in USD, such as 10usd, 10 or 0.5.")
    if usd.adjusted() > USD_DIGITS_MAX:
        raise typer.BadParameter(f"{text!r} is more than can be counted.")
    if usd != round(usd, DECIMALS):
        raise typer.BadParameter(f"{text!r} has more than {DECIMALS} decimals, the most that an amount can have.")
    return int(usd * NANO_PER_USD)


def amount_of(message: Descriptor, field: str) -> Callable[[str], int]:
    """Makes the reader of an option's amount, in USD, for a field of a request: nano-USD that its contract allows."""
    bounds = bounds_of(message, field)

    def read(text: str) -> int:
        nano_usd = nano_usd_of(text)
        if nano_usd < bounds.low:
            least = f"{exact_usd(bounds.low)} USD or more" if bounds.low != 1 else "more than 0"
            raise typer.BadParameter(f"{text!r} is too little; give {least}.")
        if nano_usd > bounds.high:
            raise typer.BadParameter(f"{text!r} is too much; give at most {exact_usd(bounds.high)} USD.")
        return nano_usd

    return read
