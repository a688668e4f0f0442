"""Brand detection: how many bytes of answers one core looks through, with 2,000 names.

Run it as `make -s bench NAME=metrics_brands`; `bench.metrics` takes its figures over.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from bench.environment import environment
from services.metrics.brands.answers import Depth, detect_answers
from services.metrics.brands.brand_set import Brand
from services.metrics.brands.detection import detector_of

NAMES: Final = 2_000
ANSWERS: Final = 600
WORDS: Final = 200
MENTIONED_SHARE: Final = 0.02
ROUNDS: Final = 5

_COMMON = """
the of and to in is that for it as was with be by on not this are or from at which but have an had they you were their
one all we can has there been if more when will would who so no payment platform customers business service offers small
large teams pricing support integration features global provider choose option best popular widely used known market
""".split()


def brand_set(rng: random.Random) -> tuple[Brand, ...]:
    """Brands of two names each, made of syllables, some of two words."""
    names: dict[str, None] = {}
    while len(names) < NAMES:
        name = "".join(rng.choice("bcdfghklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 3, 3, 4))))
        names[name if rng.random() < 0.85 else f"{name} {rng.choice(_COMMON)}"] = None
    listed = [name.title() for name in names]
    return tuple(Brand(name, (alias,)) for name, alias in zip(listed[::2], listed[1::2], strict=True))


def answer(rng: random.Random, brands: Sequence[Brand], *, typographic: bool) -> str:
    """An answer of `WORDS` words in a numbered list with bold openings, about 1.2 kB; English in plain ASCII or not."""
    lines: list[str] = []
    words: list[str] = []
    for _ in range(WORDS):
        brand = rng.choice(brands)
        words.append(
            rng.choice((brand.name, *brand.aliases)) if rng.random() < MENTIONED_SHARE else rng.choice(_COMMON)
        )
        if len(words) == 25:
            lines.append(f"{len(lines) + 1}. **{words[0].title()}**: {' '.join(words[1:])}.")
            words = []
    text = "\n".join(lines)
    return text.replace(" it ", " it\u2019s \u2014 ").replace("the ", "the \u201c") if typographic else text


def figures() -> dict[str, Any]:
    """The figures of this benchmark by their keys."""
    rng = random.Random(1)  # noqa: S311 (texts that are always the same)
    brands = brand_set(rng)
    started = time.process_time()
    detector_of(brands)
    compile_ms = (time.process_time() - started) * 1_000
    plain = [answer(rng, brands, typographic=False) for _ in range(ANSWERS)]
    typographic = [answer(rng, brands, typographic=True) for _ in range(ANSWERS)]
    found = detect_answers(brands, plain, Depth())
    return {
        "brand_mb_per_s_per_core": _rate(brands, plain, Depth()),
        "brand_mb_per_s_per_core_typographic": _rate(brands, typographic, Depth()),
        "brand_mb_per_s_per_core_with_contexts": _rate(brands, plain, Depth(contexts=True)),
        "brand_mb_per_s_per_core_with_sentiment": _rate(brands, plain[:50], Depth(sentiment=True)),
        "brand_names": NAMES,
        "brand_compile_ms": round(compile_ms, 1),
        "brand_mentions_per_answer": round(sum(len(each.mentions) for each in found) / ANSWERS, 2),
        "brand_bytes_per_answer": round(sum(map(len, plain)) / ANSWERS),
    }


def _rate(brands: tuple[Brand, ...], answers: Sequence[str], depth: Depth) -> float:
    """Megabytes of UTF-8 a second of CPU; the best of a few rounds."""
    size = sum(len(text.encode()) for text in answers)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        detect_answers(brands, answers, depth)
        best = min(best, time.process_time() - started)
    return round(size / best / 1e6, 1)


def main() -> None:
    """Prints one JSON object."""
    print(json.dumps({**environment(), **figures()}))


if __name__ == "__main__":
    main()
