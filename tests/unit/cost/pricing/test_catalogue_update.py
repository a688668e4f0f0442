"""The command that compares the catalogue with the installed genai-prices."""

from copy import deepcopy
from pathlib import Path

import orjson
import pytest

from services.cost.pricing.catalogue import Catalogue, read_document, versions
from services.cost.pricing.catalogue_source import compile_document
from services.cost.pricing.catalogue_update import difference, main, next_version, write_document


def test_the_checked_in_catalogue_is_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert not difference(read_document(versions()[-1]), compile_document("next"))
    assert main([]) == 0
    assert "no price differs" in capsys.readouterr().out


def test_differences_are_told_by_kind() -> None:
    old = read_document(versions()[-1])
    new = deepcopy(old)
    openai = next(provider for provider in new["providers"] if provider["id"] == "openai")
    by_id = {model["id"]: model for model in openai["models"]}
    by_id["gpt-4o"]["prices"][0]["tiers"][0][1][0] = 2_000_000_000
    by_id["gpt-5"]["service_tiers"]["flex"][0]["request"] = 1_000_000
    del by_id["gpt-5"]["service_tiers"]["priority"]
    by_id["o3"]["match"] = {"equals": "o3"}
    openai["models"].remove(by_id["gpt-4"])
    openai["models"].append({**by_id["gpt-4"], "id": "gpt-99"})
    new["aliases"]["grok"] = "x-ai"
    found = difference(old, new)
    assert (found.added, found.removed) == (["openai/gpt-99"], ["openai/gpt-4"])
    assert list(found.changed) == ["openai/gpt-4o", "openai/gpt-5"]
    assert "input 2.5," in found.changed["openai/gpt-4o"][0]
    assert "-> input 2," in found.changed["openai/gpt-4o"][0]
    assert any(line.startswith("priority") and line.endswith("-> none") for line in found.changed["openai/gpt-5"])
    assert any("request 0.001" in line for line in found.changed["openai/gpt-5"])
    assert found.rules[1:] == ["openai/o3"]


def test_a_version_is_written_once_and_reads_the_same(tmp_path: Path) -> None:
    document = compile_document("2026-12-01")
    path = write_document(document, tmp_path)
    assert orjson.loads(path.read_bytes()) == document
    assert Catalogue(document).version == "2026-12-01"
    with pytest.raises(FileExistsError):
        write_document(document, tmp_path)


def test_a_second_version_of_a_day_has_a_number() -> None:
    assert next_version(["2026-11-20"], "2026-11-21") == "2026-11-21"
    assert next_version(["2026-11-21", "2026-11-21.2"], "2026-11-21") == "2026-11-21.3"
