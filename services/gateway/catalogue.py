"""Which providers and models there are: data of a YAML file, checked when it is read, extended by the operator's own.

    providers:
      - name: my-vllm                  # then models are called "my-vllm/<model>"
        kind: openai                   # or anthropic, gemini
        api: chat                      # or responses: OpenAI's newer format, which keeps reasoning between turns
        base_url: http://127.0.0.1:8000/v1
        api_key_variable: MY_VLLM_KEY  # leave out where the server needs none; a list: the first that is set
        models:
          - name: "*"                  # any name is passed on
            requests_per_minute: 600   # leave out for no limit; the same for tokens
            tokens_per_minute: 200000
            burst_s: 10                # how many seconds of the rate may be used at once

Adding an OpenAI-compatible provider is an entry like this one, not code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.gateway.failures import refused

ANY_MODEL = "*"
DEFAULT_MAX_OUTPUT_TOKENS = 4_096


class CatalogueError(Exception):
    """The catalogue cannot be used; one line that says where and why."""


class ModelEntry(BaseModel):
    """A model of a provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    default_max_output_tokens: int = Field(DEFAULT_MAX_OUTPUT_TOKENS, ge=1, le=1_000_000)
    reasoning_style: Literal["", "budget", "adaptive", "level"] = ""
    # What the gateway sends to it at most, 0 for no limit; the burst is in seconds of the rate.
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_minute: int = Field(0, ge=0)
    burst_s: float = Field(10.0, gt=0, le=60)


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class ProviderEntry(BaseModel):
    """A provider. It is configured when its key and its base URL, where it needs them, are there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    kind: Literal["mock", "openai", "anthropic", "gemini", "tinyfish"]
    base_url: str = Field("", pattern=r"^(https?://.+)?$")
    base_url_variable: str = ""
    base_url_required: bool = False
    run_path: str = "/v1/automation/run"
    run_path_variable: str = ""
    poll_s: float = Field(2.0, gt=0, le=60)
    mock_mode_variable: str = ""
    api_key_variable: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    stream_options: bool = True
    seed_field: Literal["seed", "random_seed"] = "seed"
    api: Literal["chat", "responses"] = "chat"
    circuit_breaker: bool = True
    models: tuple[ModelEntry, ...] = Field(min_length=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    providers: tuple[ProviderEntry, ...]


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """A provider with what the environment says. `missing_setting` names the variable to fill in; empty: ready.

    `run_path` and `mock_mode` are of automations: where they are run, and whether only in appearance, without a key.
    """

    entry: ProviderEntry
    api_key: str = field(repr=False)
    base_url: str
    missing_setting: str
    run_path: str = ""
    mock_mode: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model for people to choose from. The name ends with "/*" where the provider takes any name."""

    name: str
    provider: str
    configured: bool
    default_max_output_tokens: int
    missing_setting: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a call goes: a provider, and the provider's name of the model."""

    provider: str
    model: str
    default_max_output_tokens: int
    reasoning_style: str
    circuit_breaker: bool = True
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    burst_s: float = 10.0

    @property
    def name(self) -> str:
        """What breakers, limits and people call it. A provider has one base URL, so this names an address too."""
        return f"{self.provider}/{self.model}"


class Catalogue:
    """All providers and models, by name."""

    def __init__(self, providers: Mapping[str, ConfiguredProvider]) -> None:
        self._providers = dict(sorted(providers.items()))

    @property
    def configured(self) -> list[ConfiguredProvider]:
        """Providers that calls can go to."""
        return [provider for provider in self._providers.values() if not provider.missing_setting]

    @property
    def providers(self) -> list[ConfiguredProvider]:
        """All providers, by name."""
        return list(self._providers.values())

    def route(self, name: str) -> Deployment:
        """Where a call to "provider/model" goes.

        Raises CallFailed, not dispatched: MODEL_NOT_FOUND, PROVIDER_NOT_CONFIGURED.
        """
        provider_name, _, model = name.partition("/")
        provider = self._providers.get(provider_name)
        if provider is None or not model:
            known = ", ".join(self._providers)
            message = f"no provider for model {name!r}; write provider/model with one of: {known}"
            raise refused("MODEL_NOT_FOUND", message, field="call.model")
        entries = {entry.name: entry for entry in provider.entry.models}
        entry = entries.get(model) or entries.get(ANY_MODEL)
        if entry is None:
            shown = ", ".join(list(entries)[:8])
            message = f"{provider_name} has no model {model!r} in the catalogue, which has: {shown}; " + (
                "add it to the file that LLMLAB_GATEWAY_CATALOGUE_FILE names" if provider.entry.kind != "mock" else ""
            )
            raise refused("MODEL_NOT_FOUND", message.rstrip("; "), field="call.model")
        if provider.missing_setting:
            message = f"{provider_name} is not configured: set {provider.missing_setting} for the gateway"
            raise refused("PROVIDER_NOT_CONFIGURED", message, field="call.model")
        return Deployment(
            provider=provider_name,
            model=model,
            default_max_output_tokens=entry.default_max_output_tokens,
            reasoning_style=entry.reasoning_style,
            circuit_breaker=provider.entry.circuit_breaker,
            requests_per_minute=entry.requests_per_minute,
            tokens_per_minute=entry.tokens_per_minute,
            burst_s=entry.burst_s,
        )

    def models(self, provider_name: str = "") -> list[ModelInfo]:
        """All models, or one provider's, by name."""
        return [
            ModelInfo(
                name=f"{name}/{entry.name}",
                provider=name,
                configured=not provider.missing_setting,
                default_max_output_tokens=entry.default_max_output_tokens,
                missing_setting=provider.missing_setting,
            )
            for name, provider in self._providers.items()
            if provider_name in ("", name) and provider.entry.kind != "tinyfish"
            for entry in sorted(provider.entry.models, key=lambda entry: entry.name)
        ]


def load_catalogue(environ: Mapping[str, str], file: Path | None = None) -> Catalogue:
    """The catalogue that ships, with the operator's file over it: a provider of the same name is replaced.

    `environ` holds keys and base URLs under the variables that the entries name. Raises CatalogueError.
    """
    shipped = resources.files("services.gateway").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    entries = {entry.name: entry for entry in parse_catalogue(shipped, "catalogue.yaml").providers}
    if file is not None:
        try:
            text = file.expanduser().read_text(encoding="utf-8")
        except OSError as error:
            raise CatalogueError(f"{file}: {error.strerror}") from error
        entries |= {entry.name: entry for entry in parse_catalogue(text, str(file)).providers}
    return Catalogue({name: _with_environment(entry, environ) for name, entry in entries.items()})


def parse_catalogue(text: str, source: str) -> _File:
    """The entries of a file; CatalogueError names the place that is wrong."""
    try:
        return _File.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise CatalogueError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise CatalogueError(f"{source}: {place}: {first['msg']}") from error


def _with_environment(entry: ProviderEntry, environ: Mapping[str, str]) -> ConfiguredProvider:
    api_key = next((key for name in entry.api_key_variable if (key := environ.get(name, ""))), "")
    base_url = (environ.get(entry.base_url_variable, "") if entry.base_url_variable else "") or entry.base_url
    missing = ""
    run_path = environ.get(entry.run_path_variable, "") or entry.run_path
    if environ.get(entry.mock_mode_variable, "").lower() in ("1", "true", "yes"):
        return ConfiguredProvider(entry, "", base_url, "", run_path, mock_mode=True)
    if entry.api_key_variable and not api_key:
        missing = entry.api_key_variable[0]
    elif entry.base_url_required and not base_url:
        missing = entry.base_url_variable
    return ConfiguredProvider(entry, api_key, base_url, missing, run_path)
