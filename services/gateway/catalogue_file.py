"""The catalogue as an operator writes it: YAML, checked when it is read; an error names the line and the field.

    providers:
      - name: my-vllm                  # then its models are called "my-vllm/<model>"
        kind: openai                   # or anthropic, gemini
        api: chat                      # or responses: OpenAI's newer format, which keeps reasoning between turns
        base_url: http://127.0.0.1:8000/v1
        api_key_variable: MY_VLLM_KEY  # leave out where the server needs none; a list: the first that is set
        models:
          - name: "*"                  # any name is passed on
            requests_per_minute: 600   # leave out for no limit; the same for tokens
            tokens_per_minute: 200000
            burst_s: 10                # how many seconds of the rate may be used at once
            capabilities: [images, tools, json_schema]   # leave out where unknown: then nothing is checked
            billed_as: openai/*        # whose prices hold, and whose name the bill shows; leave out for its own

    models:                            # names without a provider: calls to them are routed
      - name: llama
        deployments:
          - {model: my-vllm/llama, weight: 3}            # three calls of four
          - {model: together/llama, weight: 1}
        hedge_after_ms: 0              # leave out for no hedging; 0: after the 95th percentile of its first tokens
        fallbacks:
          general: [groq/llama]        # when no deployment answers
          context_window: [google/gemini-2.5-pro]
          content_policy: [mistral/mistral-large-latest]

    aliases: {fast: llama, cheap: mock/small}

Adding an OpenAI-compatible provider is an entry like the first one, not code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

DEFAULT_MAX_OUTPUT_TOKENS = 4_096
DEPLOYMENTS_MAX = 32
FALLBACKS_MAX = 8

Capability = Literal["images", "tools", "json_schema"]
Place = tuple[str | int, ...]
"""The way to a field, such as ("models", 0, "name")."""

# Of a routed model or an alias: no slash, so that it is never taken for a provider's model.
ShortName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
LongName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}/[^\s*]{1,190}$")]
AnyName = Annotated[str, StringConstraints(pattern=r"^[^\s*]{1,256}$")]
Fallbacks = Annotated[tuple[AnyName, ...], Field(max_length=FALLBACKS_MAX)]


class CatalogueError(Exception):
    """The catalogue cannot be used; one line that says where and why."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Entry):
    """A model of a provider."""

    name: str = Field(min_length=1, max_length=200)
    default_max_output_tokens: int = Field(DEFAULT_MAX_OUTPUT_TOKENS, ge=1, le=1_000_000)
    reasoning_style: Literal["", "budget", "adaptive", "level"] = ""
    # What the gateway sends to it at most, 0 for no limit; the burst is in seconds of the rate.
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_minute: int = Field(0, ge=0)
    burst_s: float = Field(10.0, gt=0, le=60)
    capabilities: frozenset[Capability] | None = None
    billed_as: str = Field("", pattern=r"^([a-z0-9][a-z0-9_-]{0,63}/\S{1,190})?$")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class ProviderEntry(_Entry):
    """A provider. It is configured when its key and its base URL, where it needs them, are there."""

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
    # False where streams end with "[DONE]" and never with a finish reason; elsewhere such a stream is a broken one.
    names_finish: bool = True
    api: Literal["chat", "responses"] = "chat"
    circuit_breaker: bool = True
    models: tuple[ModelEntry, ...] = Field(min_length=1)


class DeploymentEntry(_Entry):
    """One place where a routed model can be called; it gets calls in proportion to its weight."""

    model: LongName
    weight: float = Field(1.0, gt=0, le=1_000)


class FallbackEntry(_Entry):
    """What is called instead, in this order, after an error of each kind."""

    general: Fallbacks = ()
    context_window: Fallbacks = ()
    content_policy: Fallbacks = ()


class RoutedModelEntry(_Entry):
    """A model that can be called in several places."""

    name: ShortName
    deployments: tuple[DeploymentEntry, ...] = Field(min_length=1, max_length=DEPLOYMENTS_MAX)
    fallbacks: FallbackEntry = FallbackEntry()
    hedge_after_ms: int | None = Field(None, ge=0, le=3_600_000)


class CatalogueFile(_Entry):
    """All of a file."""

    providers: tuple[ProviderEntry, ...] = ()
    models: tuple[RoutedModelEntry, ...] = ()
    aliases: dict[ShortName, AnyName] = Field(default_factory=dict)


# libyaml's parser takes a tenth of the time; not every build of PyYAML has it.
_FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _loaded(text: str) -> Any:
    try:
        return yaml.load(text, _FAST_LOADER)  # noqa: S506 (a safe loader)
    except yaml.YAMLError:
        return yaml.safe_load(text)  # its errors say more


class CatalogueText:
    """The text of a file and where it is from; finds the line of what is wrong."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source

    def parse(self) -> CatalogueFile:
        """The entries. Raises CatalogueError."""
        try:
            file = CatalogueFile.model_validate(_loaded(self._text) or {})
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise CatalogueError(f"{self._source}{line}: not YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise CatalogueError(f"{self._source}: not YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            found = error.errors()
            more = f" (and {len(found) - 1} more)" if found[1:] else ""
            raise self.error(found[0]["loc"], found[0]["msg"] + more) from error
        self._check_names("providers", [entry.name for entry in file.providers])
        self._check_names("models", [entry.name for entry in file.models])
        for index, provider in enumerate(file.providers):
            self._check_names(("providers", index, "models"), [entry.name for entry in provider.models])
        return file

    def error(self, place: Place, message: str) -> CatalogueError:
        """The error of a field, with its line."""
        return CatalogueError(f"{self._source}:{self._line_of(place)}: {_written(place)}: {message}")

    def _check_names(self, where: str | Place, names: Sequence[str]) -> None:
        place = (where,) if isinstance(where, str) else where
        first_of: dict[str, int] = {}
        for index, name in enumerate(names):
            if name in first_of:
                message = f"{name!r} is the name of {_written((*place, first_of[name]))} already"
                raise self.error((*place, index, "name"), message)
            first_of[name] = index

    def _line_of(self, place: Place) -> int:
        """The line of a field, or of the deepest one around it that is there (a missing field has no line)."""
        node = yaml.compose(self._text, Loader=yaml.SafeLoader)
        line = 1
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return line


def _written(place: Place) -> str:
    """A place as people write it: providers[0].name."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the file"
