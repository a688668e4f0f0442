"""Providers and models as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.catalogue import CatalogueError, load_catalogue, parse_catalogue
from tests.support.gateway import raises_call_failed

OWN = """
providers:
  - name: local
    kind: openai
    base_url: http://127.0.0.1:8000/v1
    models: [{name: "*"}]
  - name: openai
    kind: openai
    api_key_variable: MY_KEY
    models: [{name: only-this, default_max_output_tokens: 7}]
"""


def test_the_shipped_catalogue_routes() -> None:
    catalogue = load_catalogue({"OPENAI_API_KEY": "k"})
    assert {provider.entry.name for provider in catalogue.configured} == {"mock", "openai"}
    deployment = catalogue.route("openai/gpt-4o-mini")
    assert (deployment.provider, deployment.model) == ("openai", "gpt-4o-mini")
    assert load_catalogue({"ANTHROPIC_API_KEY": "k"}).route("anthropic/claude-opus-5").reasoning_style == "adaptive"


@pytest.mark.parametrize("name", ["nobody/model", "mock", "mock/", "mock/none", "gpt-4o", ""])
def test_an_unknown_model_names_the_field(name: str) -> None:
    failure = raises_call_failed(lambda: load_catalogue({}).route(name)).failure
    assert (failure.reason, failure.field, failure.dispatched) == ("MODEL_NOT_FOUND", "call.model", False)


def test_a_missing_key_names_the_setting() -> None:
    failure = raises_call_failed(lambda: load_catalogue({"OPENAI_API_KEY": ""}).route("openai/gpt-4o")).failure
    assert failure.reason == "PROVIDER_NOT_CONFIGURED"
    assert "OPENAI_API_KEY" in failure.message
    (model,) = (entry for entry in load_catalogue({}).models("openai") if entry.name == "openai/gpt-4o")
    assert (model.configured, model.missing_setting) == (False, "OPENAI_API_KEY")


def test_a_base_url_from_the_environment_configures_a_keyless_provider() -> None:
    assert load_catalogue({}).models("ollama")[0].missing_setting == "OLLAMA_BASE_URL"
    catalogue = load_catalogue({"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1"})
    assert catalogue.route("ollama/qwen3:8b").model == "qwen3:8b"


def test_the_operators_file_adds_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    catalogue = load_catalogue({"MY_KEY": "k"}, file)
    assert catalogue.route("local/meta/llama-3").model == "meta/llama-3"
    assert catalogue.route("openai/only-this").default_max_output_tokens == 7
    assert raises_call_failed(lambda: catalogue.route("openai/gpt-4o")).failure.reason == "MODEL_NOT_FOUND"
    assert "local/*" in [model.name for model in catalogue.models()]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("providers: [", "own.yaml: not YAML"),
        ("providers: []\nmore: 1", "own.yaml: more"),
        ("providers: [{name: Bad Name, kind: openai, models: [{name: a}]}]", "providers.0.name"),
        ("providers: [{name: a, kind: telepathy, models: [{name: a}]}]", "providers.0.kind"),
        ("providers: [{name: a, kind: openai, models: []}]", "providers.0.models"),
        ("providers: [{name: a, kind: openai, base_url: ftp://x, models: [{name: a}]}]", "providers.0.base_url"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_place(text: str, place: str) -> None:
    with pytest.raises(CatalogueError) as error:
        parse_catalogue(text, "own.yaml")
    assert place in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="No such file"):
        load_catalogue({}, tmp_path / "none.yaml")


def test_a_models_limits_and_a_providers_breaker_reach_its_deployments(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "providers: [{name: local, kind: openai, circuit_breaker: false, models: "
        '[{name: "*", requests_per_minute: 60, tokens_per_minute: 9000, burst_s: 2}]}]'
    )
    deployment = load_catalogue({}, file).route("local/a")
    assert (deployment.name, deployment.circuit_breaker) == ("local/a", False)
    assert (deployment.requests_per_minute, deployment.tokens_per_minute, deployment.burst_s) == (60, 9_000, 2.0)
    shipped = load_catalogue({}).route("mock/small")
    assert (shipped.circuit_breaker, shipped.requests_per_minute) == (False, 0)
