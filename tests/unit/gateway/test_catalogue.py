"""Providers and models as data."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from services.gateway import catalogue_file
from services.gateway.catalogue import Catalogue, Deployment, load_catalogue
from services.gateway.catalogue_file import CatalogueError, CatalogueText
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


MODEL = """models:
- name: m
  deployments:
  - model: mock/small
  fallbacks: {general: [mock/large]}
"""

ROUTED = """
providers:
  - name: a
    kind: openai
    models: [{name: "*", capabilities: [tools], billed_as: groq/*}]
  - name: b
    kind: openai
    models: [{name: llama}]
models:
  - name: llama
    deployments: [{model: a/llama, weight: 3}, {model: b/llama}]
    fallbacks: {general: [mock/large, cheap], context_window: [openai/gpt-4.1]}
    hedge_after_ms: 250
aliases: {fast: llama, cheap: mock/small}
"""


def place_of(catalogue: Catalogue, name: str) -> Deployment:
    """The only deployment of a name."""
    ((deployment, _),) = catalogue.route(name).deployments
    return deployment


def test_the_shipped_catalogue_routes() -> None:
    catalogue = load_catalogue({"OPENAI_API_KEY": "k"})
    assert {provider.entry.name for provider in catalogue.configured} == {"mock", "openai"}
    deployment = place_of(catalogue, "openai/gpt-4o-mini")
    assert (deployment.provider, deployment.model) == ("openai", "gpt-4o-mini")
    assert place_of(load_catalogue({"ANTHROPIC_API_KEY": "k"}), "anthropic/claude-opus-5").reasoning_style == "adaptive"


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
    assert place_of(catalogue, "ollama/qwen3:8b").model == "qwen3:8b"


def test_the_operators_file_adds_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    catalogue = load_catalogue({"MY_KEY": "k"}, file)
    assert place_of(catalogue, "local/meta/llama-3").model == "meta/llama-3"
    assert place_of(catalogue, "openai/only-this").default_max_output_tokens == 7
    assert raises_call_failed(lambda: catalogue.route("openai/gpt-4o")).failure.reason == "MODEL_NOT_FOUND"
    assert "local/*" in [model.name for model in catalogue.models()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("providers:\n  - name: a\n    kind: [", "own.yaml:3: not YAML"),
        ("providers: []\nmore: 1", "own.yaml:2: more: Extra inputs"),
        ("providers:\n  - name: Bad Name\n    kind: openai\n    models: [{name: a}]", "own.yaml:2: providers[0].name"),
        ("providers:\n  - name: a\n    kind: telepathy\n    models: [{name: a}]", "own.yaml:3: providers[0].kind"),
        ("providers:\n  - name: a\n    kind: openai\n    models: []", "own.yaml:4: providers[0].models"),
        ("providers:\n  - kind: openai\n    models: [{name: a}]", "own.yaml:2: providers[0].name: Field required"),
        ("providers:\n- {name: a, kind: openai, base_url: ftp://x, models: [{name: a}]}", "providers[0].base_url"),
        ("- 1", "own.yaml:1: the file: "),
        ("models:\n- name: m/n\n  deployments: [{model: mock/small}]", "own.yaml:2: models[0].name"),
        ("models:\n- name: m\n  deployments:\n  - {model: mock/small, weight: 0}", "models[0].deployments[0].weight"),
        ("aliases:\n  fast: mock/*", "own.yaml:2: aliases.fast"),
        ("providers: [{name: a}]\nmodels: [{name: b}]", "(and 2 more)"),
        (
            "models:\n- {name: m, deployments: [{model: mock/small}]}\n- {name: m, deployments: [{model: mock/small}]}",
            "own.yaml:3: models[1].name: 'm' is the name of models[0] already",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_line_and_field(text: str, said: str) -> None:
    with pytest.raises(CatalogueError) as error:
        CatalogueText(text, "own.yaml").parse()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aliases:\n  fast: nobody/model", ":2: aliases.fast: no provider for model 'nobody/model'"),
        ("aliases:\n  fast: mock/none", ":2: aliases.fast: mock has no model 'none'"),
        ("aliases:\n  a: mock/small\n  b: a", ":3: aliases.b: 'a' is an alias too; name a model"),
        (MODEL + "aliases: {m: mock/small}", ":6: aliases.m: 'm' is the name of a model already"),
        (MODEL.replace("mock/small", "mock/none"), ":4: models[0].deployments[0].model: mock has no model 'none'"),
        (MODEL.replace("mock/large", "none"), ":5: models[0].fallbacks.general[0]: no provider for model 'none'"),
        (MODEL.replace("mock/large", "m"), ":5: models[0].fallbacks.general[0]: a model is its own fallback"),
    ],
)
def test_a_name_that_stands_for_nothing_is_an_error(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(CatalogueError) as error:
        load_catalogue({}, file)
    assert str(error.value).startswith(str(file) + said)


def test_an_alias_stands_for_a_model_and_a_model_for_its_deployments(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(ROUTED)
    catalogue = load_catalogue({"OPENAI_API_KEY": "k"}, file)
    route = catalogue.route("fast")
    assert route == catalogue.route("llama")
    assert [(deployment.name, weight) for deployment, weight in route.deployments] == [("a/llama", 3), ("b/llama", 1)]
    assert route.fallbacks == {"general": ("mock/large", "cheap"), "context_window": ("openai/gpt-4.1",)}
    assert (route.hedge_after_ms, route.places) == (250, "a/llama,b/llama")
    first = route.deployments[0][0]
    assert (first.capabilities, first.billed_provider, first.billed_model) == (frozenset({"tools"}), "groq", "llama")
    assert place_of(catalogue, "cheap").name == "mock/small"
    assert catalogue.route("a/llama").fallbacks == {}


def test_deployments_without_a_key_are_left_out_while_others_have_one(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("models: [{name: m, deployments: [{model: openai/gpt-4o}, {model: groq/m}]}]")
    assert place_of(load_catalogue({"GROQ_API_KEY": "k"}, file), "m").name == "groq/m"
    bare = load_catalogue({}, file)
    failure = raises_call_failed(lambda: bare.route("m")).failure
    assert (failure.reason, "GROQ_API_KEY" in failure.message) == ("PROVIDER_NOT_CONFIGURED", True)
    (shown,) = (model for model in bare.models() if model.name == "m")
    assert (shown.configured, shown.missing_setting) == (False, "OPENAI_API_KEY")


def test_models_and_aliases_are_listed_with_what_they_stand_for(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(ROUTED)
    shown = {model.name: model for model in load_catalogue({}, file).models()}
    assert shown["llama"].deployments == (("a/llama", 3.0), ("b/llama", 1.0))
    assert shown["llama"].fallbacks["general"] == ("mock/large", "cheap")
    assert (shown["fast"].alias_of, shown["fast"].configured, shown["cheap"].alias_of) == ("llama", True, "mock/small")
    # b does not say what it can do.
    assert (shown["llama"].capabilities, shown["a/*"].capabilities) == (None, frozenset({"tools"}))
    assert list(shown) == sorted(shown)
    assert "llama" not in {model.name for model in load_catalogue({}, file).models("mock")}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="No such file"):
        load_catalogue({}, tmp_path / "none.yaml")


def test_a_models_limits_and_a_providers_breaker_reach_its_deployments(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "providers: [{name: local, kind: openai, circuit_breaker: false, models: "
        '[{name: "*", requests_per_minute: 60, tokens_per_minute: 9000, burst_s: 2}]}]'
    )
    deployment = place_of(load_catalogue({}, file), "local/a")
    assert (deployment.name, deployment.circuit_breaker) == ("local/a", False)
    assert (deployment.requests_per_minute, deployment.tokens_per_minute, deployment.burst_s) == (60, 9_000, 2.0)
    shipped = place_of(load_catalogue({}), "mock/small")
    assert (shipped.circuit_breaker, shipped.requests_per_minute) == (False, 0)


def test_the_shipped_catalogue_says_what_models_can_do() -> None:
    catalogue = load_catalogue({"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"})
    assert place_of(catalogue, "openai/o3-mini").capabilities == frozenset({"tools", "json_schema"})
    assert place_of(catalogue, "openai/text-embedding-3-small").capabilities == frozenset()
    # Of what a server lists itself nothing is known.
    assert place_of(catalogue, "groq/anything").capabilities is None


def test_the_example_in_the_documentation_is_a_good_catalogue(tmp_path: Path) -> None:
    explanation = catalogue_file.__doc__ or ""
    example = explanation[explanation.index("    providers:") : explanation.index("\nAdding")]
    file = tmp_path / "own.yaml"
    file.write_text(textwrap.dedent(example))
    catalogue = load_catalogue({"TOGETHER_API_KEY": "k", "MY_VLLM_KEY": "k"}, file)
    route = catalogue.route("fast")
    assert (route.places, len(route.fallbacks), route.hedge_after_ms) == ("my-vllm/llama,together/llama", 3, 0)
