"""`make prices` shows what the installed `genai-prices` would change in the catalogue.

With --apply it writes a new version: a file that never changes. It takes effect with the next start of the service, for
calls from then on. What is on record keeps the price that it was given, until somebody reprices it.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from services.cost.pricing.catalogue import read_document, versions
from services.cost.pricing.catalogue_source import compile_document

_DIRECTORY = Path(__file__).parent / "data" / "catalogues"
_NANO_PER_USD = 1_000_000_000
_KINDS = ("input", "cache read", "5m write", "1h write", "audio in", "output", "reasoning", "audio out")


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new catalogue changes: names of models, and of the changed ones what changes."""

    added: list[str]
    removed: list[str]
    changed: dict[str, list[str]]
    rules: list[str]
    """Models whose price stays, but which other names mean, or providers that fall back to others."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.rules)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """Compare two documents of the catalogue; their versions and sources do not count."""
    before, after = dict(_models(old)), dict(_models(new))
    changed = {}
    rules = [] if _frame(old) == _frame(new) else ["(the order or the fallbacks of providers, or their aliases)"]
    for name in sorted(before.keys() & after.keys()):
        lines = list(_price_changes(before[name], after[name]))
        if lines:
            changed[name] = lines
        elif before[name] != after[name]:
            rules.append(name)
    return Difference(sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys()), changed, rules)


def next_version(existing: list[str], day: str) -> str:
    """The day, with a number where it has a version already: "2026-11-21", "2026-11-21.2"."""
    if day not in existing:
        return day
    number = 2
    while f"{day}.{number}" in existing:
        number += 1
    return f"{day}.{number}"


def write_document(document: Mapping[str, Any], directory: Path) -> Path:
    """Write a version, one model a line, so that a review sees what changes. It must not exist."""
    path = directory / f"{document['version']}.json"
    with path.open("x", encoding="utf-8") as out:
        out.writelines(_lines(document))
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m services.cost.pricing.catalogue_update", description=__doc__)
    parser.add_argument("--apply", action="store_true", help="write the new version of the catalogue")
    wanted = parser.parse_args(arguments)
    current = versions()[-1]
    version = next_version(versions(), datetime.now(UTC).date().isoformat())
    old, new = read_document(current), compile_document(version)
    found = difference(old, new)
    source = new["sources"]
    out = sys.stdout
    out.write(f"in use:    {current} (genai-prices {old['sources']['genai-prices']})\n")
    out.write(f"installed: genai-prices {source['genai-prices']}, {source['own_prices']}\n")
    if not found:
        out.write("no price differs\n")
        return 0
    out.writelines(f"{line}\n" for line in _report(found))
    if wanted.apply:
        out.write(f"wrote {write_document(new, _DIRECTORY)}\n")
    else:
        out.write("nothing was written; run it with --apply to write a new version\n")
    return 0


def _models(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for provider in document["providers"]:
        for model in provider["models"]:
            yield f"{provider['id']}/{model['id']}", model


def _frame(document: Mapping[str, Any]) -> list[object]:
    providers = [(provider["id"], provider["fallbacks"]) for provider in document["providers"]]
    return [providers, document["aliases"]]


def _price_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = _tariffs(old), _tariffs(new)
    for key in [*before, *[key for key in after if key not in before]]:
        if before.get(key) != after.get(key):
            yield f"{key}: {_words(before.get(key))} -> {_words(after.get(key))}"


def _tariffs(model: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every tariff of a model under the words for when it holds."""
    found = {}
    for tier, tariffs in {"standard": model["prices"], **model.get("service_tiers", {})}.items():
        for tariff in tariffs:
            start = tariff.get("starts_us")
            since = "" if start is None else f" from {datetime.fromtimestamp(start / 1e6, UTC).date()}"
            daily = f" at {tariff['daily_us']}" if "daily_us" in tariff else ""
            found[f"{tier}{since}{daily}"] = tariff
    return found


def _words(tariff: Mapping[str, Any] | None) -> str:
    if tariff is None:
        return "none"
    parts = []
    for start, rates in tariff["tiers"]:
        usd = [f"{kind} {rate / _NANO_PER_USD:g}" for kind, rate in zip(_KINDS, rates, strict=True)]
        parts.append((f"from {start:,}: " if start else "") + ", ".join(usd))
    parts += [f"{fee} {tariff[fee] / _NANO_PER_USD:g}" for fee in ("request", "step") if fee in tariff]
    return "; ".join(parts)


def _report(found: Difference) -> Iterator[str]:
    """USD per million tokens."""
    yield (
        f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed in price,"
        f" {len(found.rules)} in their names"
    )
    for title, names in (("added", found.added), ("removed", found.removed), ("other names", found.rules)):
        yield from (f"{title}: {name}" for name in names)
    for name, lines in found.changed.items():
        yield f"changed: {name}"
        yield from (f"  {line}" for line in lines)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    head = {key: document[key] for key in ("version", "sources", "aliases")}
    yield _json(head)[:-1] + ',"providers":[\n'
    providers = document["providers"]
    for provider in providers:
        yield _json({"id": provider["id"], "fallbacks": provider["fallbacks"]})[:-1] + ',"models":[\n'
        yield ",\n".join(_json(model) for model in provider["models"])
        yield "]}\n" if provider is providers[-1] else "]},\n"
    yield "]}\n"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


if __name__ == "__main__":
    raise SystemExit(main())
