"""What every benchmark says about where it ran."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import Any

CALIBRATION_ROUNDS = 5
CALIBRATION_STEPS = 300_000
PACKAGES = ("grpcio", "protobuf", "sqlalchemy", "psycopg", "uvloop", "aiohttp", "orjson")


def calibration_ms() -> float:
    """Measures a fixed piece of Python work: the best of a few rounds, in milliseconds of CPU.

    CPU time drifts by a factor of two on shared machines; dividing by this figure makes runs comparable.
    """
    best = float("inf")
    for _ in range(CALIBRATION_ROUNDS):
        before = time.process_time()
        total = 0
        table = {}
        for step in range(CALIBRATION_STEPS):
            total += step * step % 7
            table[step & 1023] = total
        best = min(best, time.process_time() - before)
    return round(best * 1000, 2)


def environment() -> dict[str, Any]:
    """Describes the machine, the versions and the calibration figure."""
    return {
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "calibration_ms": calibration_ms(),
    }
