"""How often the intervals hold the truth, and how often the tests see what is not there, on simulated data.

Every number goes through the functions that the metrics service runs. The grid is below: rates near 0 and 1, few
numbers, skewed numbers, numbers that pile up at a bound, few clusters, weak and strong dependence, pairs. Prints the
table on standard error and one JSON object on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final, NamedTuple

import numpy as np

from bench.environment import environment
from bench.statistics_cases import CASES, TESTS, Case

SIMULATIONS: Final = 1_000
SEED: Final = 20_260_101
LEVEL: Final = 0.95
COVERAGE_MIN, COVERAGE_MAX = 0.93, 0.97
FALSE_POSITIVES_MAX: Final = 0.06


class Row(NamedTuple):
    """What became of one case."""

    kind: str
    name: str
    rate: float


def simulate(case: Case, simulations: int) -> float:
    """The share of simulations in which the case's event (the truth is inside; the test says different) happened."""
    generator = np.random.default_rng([SEED, *case.name.encode()])
    count = max(1, round(simulations * case.weight))
    return sum(case.happens(generator) for _ in range(count)) / count


def _row(kind: str, number: int, simulations: int) -> Row:
    case = (CASES | TESTS)[kind][number]
    return Row(kind, case.name, simulate(case, simulations))


def rows(kinds: Sequence[str], simulations: int) -> Iterator[Row]:
    """Every case of the kinds, computed by as many processes as there are cores."""
    everything = CASES | TESTS
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        pending = [
            pool.submit(_row, kind, number, simulations) for kind in kinds for number in range(len(everything[kind]))
        ]
        for each in pending:
            yield each.result()


def _summed(found: Sequence[Row]) -> dict[str, Any]:
    rates = [row.rate for row in found]
    lowest, highest = min(found, key=lambda row: row.rate), max(found, key=lambda row: row.rate)
    return {
        "cases": len(found),
        "mean": round(float(np.mean(rates)), 4),
        "min": round(lowest.rate, 4),
        "min_case": lowest.name,
        "max": round(highest.rate, 4),
        "max_case": highest.name,
    }


def main() -> int:
    """Print the table and one JSON object; 1 where a kind leaves its range."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="of each case")
    parser.add_argument("--kind", action="append", choices=[*CASES, *TESTS], help="only this kind")
    parser.add_argument("--cases", action="store_true", help="print every case too")
    arguments = parser.parse_args()
    kinds = arguments.kind or [*CASES, *TESTS]
    began = time.monotonic()
    found = list(rows(kinds, arguments.simulations))
    result: dict[str, Any] = environment() | {"simulations": arguments.simulations, "level": LEVEL}
    result |= {"coverage": {}, "false_positives": {}}
    print(f"{'':34}{'cases':>6}{'mean':>8}{'min':>8}{'max':>8}  lowest case (of a test: highest)", file=sys.stderr)
    right = True
    for kind in kinds:
        figures = _summed([row for row in found if row.kind == kind])
        is_test = kind in TESTS
        result["false_positives" if is_test else "coverage"][kind] = figures
        inside = figures["max"] <= FALSE_POSITIVES_MAX if is_test else COVERAGE_MIN <= figures["mean"] <= COVERAGE_MAX
        right = right and inside
        shown = f"{kind:34}{figures['cases']:>6}{figures['mean']:>8.3f}{figures['min']:>8.3f}{figures['max']:>8.3f}"
        print(f"{shown}  {figures['max_case' if is_test else 'min_case']}{'' if inside else '  <<'}", file=sys.stderr)
    if arguments.cases:
        for row in found:
            print(f"{row.kind}: {row.name}: {row.rate:.3f}", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    result["within_limits"] = right
    print(json.dumps(result))
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
