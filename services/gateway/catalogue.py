"""Which providers and models there are, and where a call to a name may go.

"provider/model" names one place and is never routed elsewhere. A name without a slash is a routed model, with its
deployments, weights and fallbacks, or an alias, which stands for a routed model or for one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from services.gateway.catalogue_file import (
    Capability,
    CatalogueError,
    CatalogueFile,
    CatalogueText,
    ModelEntry,
    ProviderEntry,
    RoutedModelEntry,
)
from services.gateway.failures import CallFailed, FallbackKind, refused
from services.gateway.provider_keys import find_key
from services.gateway.recent import Recent

ANY_MODEL = "*"
FALLBACK_KINDS: tuple[FallbackKind, ...] = ("general", "context_window", "content_policy")

_ROUTES_KEPT = 10_000
_MODELS_SHOWN = 8
_FIELD = "call.model"


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """A provider with what the environment says. `missing_setting` names the variable to fill in; empty: ready.

    `key_file` is where the key was read; None where a variable holds it. `run_path` and `mock_mode` are of automations:
    where they are run, and whether only in appearance, without a key.
    """

    entry: ProviderEntry
    api_key: str = field(repr=False)
    base_url: str
    missing_setting: str
    run_path: str = ""
    mock_mode: bool = False
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a call goes: a provider, and the provider's name of the model.

    `capabilities` is None where they are not known. `billed_provider` and `billed_model` are what the cost service
    prices and shows; empty for the deployment's own.
    """

    provider: str
    model: str
    default_max_output_tokens: int
    reasoning_style: str
    kind: str = ""
    circuit_breaker: bool = True
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    burst_s: float = 10.0
    capabilities: frozenset[Capability] | None = None
    billed_provider: str = ""
    billed_model: str = ""

    @property
    def name(self) -> str:
        """What breakers, limits and people call it. A provider has one base URL, so this names an address too."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where calls to a name may go: `deployments` with their weights, and the names that are called instead.

    `hedge_after_ms` None: no second attempt beside the first; 0: after the deployment's usual time to first token.
    """

    name: str
    deployments: tuple[tuple[Deployment, float], ...]
    fallbacks: Mapping[FallbackKind, tuple[str, ...]] = field(default_factory=dict)
    hedge_after_ms: int | None = None

    @property
    def places(self) -> str:
        """Its deployments as a text: two names with the same places stand for the same model."""
        return ",".join(sorted(deployment.name for deployment, _ in self.deployments))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model for people to choose from. The name ends with "/*" where the provider takes any name.

    `provider` is empty for routed models and aliases; `deployments` lists their places with weights.
    """

    name: str
    provider: str
    configured: bool
    default_max_output_tokens: int
    missing_setting: str
    capabilities: frozenset[Capability] | None = None
    alias_of: str = ""
    deployments: tuple[tuple[str, float], ...] = ()
    fallbacks: Mapping[FallbackKind, tuple[str, ...]] = field(default_factory=dict)


class Catalogue:
    """All providers and models, by name."""

    def __init__(
        self,
        providers: Mapping[str, ConfiguredProvider],
        models: Iterable[RoutedModelEntry] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._providers = dict(sorted(providers.items()))
        self._entries = {
            name: {entry.name: entry for entry in provider.entry.models} for name, provider in providers.items()
        }
        self._models = {entry.name: entry for entry in models}
        self._aliases = dict(aliases or {})
        self._routes = Recent(self._find_route, _ROUTES_KEPT)

    @property
    def configured(self) -> list[ConfiguredProvider]:
        """Providers that calls can go to."""
        return [provider for provider in self._providers.values() if not provider.missing_setting]

    def keys_in_files(self, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The keys in force that came from files, and what is in those files now; empty for one that cannot be read."""
        kept = [provider for provider in self._providers.values() if provider.key_file is not None]
        return [provider.api_key for provider in kept], [_key_now(provider, environ) for provider in kept]

    @property
    def providers(self) -> list[ConfiguredProvider]:
        """All providers, by name."""
        return list(self._providers.values())

    def route(self, name: str) -> Route:
        """Where a call to a name may go; deployments without a key are left out.

        Raises CallFailed, not dispatched: MODEL_NOT_FOUND, PROVIDER_NOT_CONFIGURED.
        """
        return self._routes.get(name)

    def _find_route(self, name: str) -> Route:
        target = self._aliases.get(name, name)
        entry = self._models.get(target)
        if entry is None:
            return Route(target, ((self._deployment(target), 1.0),))
        ready: list[tuple[Deployment, float]] = []
        last: CallFailed | None = None
        for choice in entry.deployments:
            try:
                ready.append((self._deployment(choice.model), choice.weight))
            except CallFailed as failed:
                last = failed
        if last is not None and not ready:
            raise last
        return Route(target, tuple(ready), _fallbacks(entry), entry.hedge_after_ms)

    def _deployment(self, name: str) -> Deployment:
        entry = self._entry(name)
        provider_name, _, model = name.partition("/")
        provider = self._providers[provider_name]
        if provider.missing_setting:
            message = f"{provider_name} is not configured: set {provider.missing_setting} for the gateway"
            raise refused("PROVIDER_NOT_CONFIGURED", message, field=_FIELD)
        billed_provider, _, billed_model = entry.billed_as.partition("/")
        return Deployment(
            provider=provider_name,
            model=model,
            default_max_output_tokens=entry.default_max_output_tokens,
            reasoning_style=entry.reasoning_style,
            kind=provider.entry.kind,
            circuit_breaker=provider.entry.circuit_breaker,
            requests_per_minute=entry.requests_per_minute,
            tokens_per_minute=entry.tokens_per_minute,
            burst_s=entry.burst_s,
            capabilities=entry.capabilities,
            billed_provider=billed_provider,
            billed_model=model if billed_model == ANY_MODEL else billed_model,
        )

    def _entry(self, name: str) -> ModelEntry:
        provider_name, _, model = name.partition("/")
        entries = self._entries.get(provider_name)
        if entries is None or not model:
            short = sorted([*self._models, *self._aliases])
            known = ", ".join(self._providers)
            message = f"no provider for model {name!r}; write provider/model with one of: {known}"
            message += f"; or one of these names: {', '.join(short[:_MODELS_SHOWN])}" if short else ""
            raise refused("MODEL_NOT_FOUND", message, field=_FIELD)
        entry = entries.get(model) or entries.get(ANY_MODEL)
        if entry is None:
            shown = ", ".join(list(entries)[:_MODELS_SHOWN])
            message = f"{provider_name} has no model {model!r} in the catalogue, which has: {shown}"
            if self._providers[provider_name].entry.kind != "mock":
                message += "; add it to the file that LLMLAB_GATEWAY_CATALOGUE_FILE names"
            raise refused("MODEL_NOT_FOUND", message, field=_FIELD)
        return entry

    def limited(self, provider_name: str) -> dict[str, Deployment]:
        """A configured provider's deployments that have limits, by name; not those that callers name freely."""
        if provider_name not in {provider.entry.name for provider in self.configured}:
            return {}
        names = [
            f"{provider_name}/{entry.name}"
            for entry in self._entries[provider_name].values()
            if entry.name != ANY_MODEL and (entry.requests_per_minute or entry.tokens_per_minute)
        ]
        return {name: self._deployment(name) for name in names}

    def all_limited(self) -> list[Deployment]:
        """The deployments of all configured providers that have limits."""
        return [each for provider in self.configured for each in self.limited(provider.entry.name).values()]

    def check_references(self, file: CatalogueFile, text: CatalogueText) -> None:
        """Raises CatalogueError for a name in the file that stands for nothing."""
        for index, model in enumerate(file.models):
            for position, choice in enumerate(model.deployments):
                place = ("models", index, "deployments", position, "model")
                self._check_reference(choice.model, text, place, exact=True)
            for kind in FALLBACK_KINDS:
                for position, name in enumerate(getattr(model.fallbacks, kind)):
                    self._check_reference(name, text, ("models", index, "fallbacks", kind, position))
                    if name == model.name:
                        raise text.error(("models", index, "fallbacks", kind, position), "a model is its own fallback")
        for alias, name in file.aliases.items():
            if alias in self._models:
                raise text.error(("aliases", alias), f"{alias!r} is the name of a model already")
            if name in self._aliases:
                raise text.error(("aliases", alias), f"{name!r} is an alias too; name a model")
            self._check_reference(name, text, ("aliases", alias))

    def _check_reference(
        self, name: str, text: CatalogueText, place: tuple[str | int, ...], *, exact: bool = False
    ) -> None:
        if not exact and (name in self._models or name in self._aliases):
            return
        try:
            self._entry(name)
        except CallFailed as failed:
            raise text.error(place, failed.failure.message) from failed

    def models(self, provider_name: str = "") -> list[ModelInfo]:
        """All models, or one provider's, by name; with all of them also routed models and aliases."""
        own = [
            ModelInfo(
                name=f"{name}/{entry.name}",
                provider=name,
                configured=not provider.missing_setting,
                default_max_output_tokens=entry.default_max_output_tokens,
                missing_setting=provider.missing_setting,
                capabilities=entry.capabilities,
            )
            for name, provider in self._providers.items()
            if provider_name in ("", name) and provider.entry.kind != "tinyfish"
            for entry in provider.entry.models
        ]
        if not provider_name:
            own += [self._short_info(name) for name in (*self._models, *self._aliases)]
        return sorted(own, key=lambda model: model.name)

    def _short_info(self, name: str) -> ModelInfo:
        target = self._aliases.get(name, name)
        entry = self._models.get(target)
        places = [(choice.model, choice.weight) for choice in entry.deployments] if entry else [(target, 1.0)]
        missing = [self._providers[place.partition("/")[0]].missing_setting for place, _ in places]
        try:
            deployments = self.route(name).deployments
        except CallFailed:
            deployments = ()
        return ModelInfo(
            name=name,
            provider="",
            configured=bool(deployments),
            default_max_output_tokens=deployments[0][0].default_max_output_tokens if deployments else 0,
            missing_setting="" if deployments else missing[0],
            capabilities=_common([deployment.capabilities for deployment, _ in deployments]),
            alias_of=target if name in self._aliases else "",
            deployments=tuple(places),
            fallbacks=_fallbacks(entry) if entry else {},
        )


def load_catalogue(environ: Mapping[str, str], file: Path | None = None) -> Catalogue:
    """The catalogue that ships, with the operator's file over it: a provider of the same name is replaced.

    `environ` holds keys and base URLs under the variables that the entries name. Raises CatalogueError.
    """
    text = CatalogueText(
        resources.files("services.gateway").joinpath("catalogue.yaml").read_text(encoding="utf-8"), "catalogue.yaml"
    )
    loaded = text.parse()
    entries = {entry.name: entry for entry in loaded.providers}
    if file is not None:
        try:
            text = CatalogueText(file.expanduser().read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogueError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
        loaded = text.parse()
        entries |= {entry.name: entry for entry in loaded.providers}
    providers = {name: _with_environment(entry, environ) for name, entry in entries.items()}
    catalogue = Catalogue(providers, loaded.models, loaded.aliases)
    catalogue.check_references(loaded, text)
    return catalogue


def _fallbacks(entry: RoutedModelEntry) -> dict[FallbackKind, tuple[str, ...]]:
    return {kind: names for kind in FALLBACK_KINDS if (names := getattr(entry.fallbacks, kind))}


def _common(known: list[frozenset[Capability] | None]) -> frozenset[Capability] | None:
    """What all deployments can do; None where that is not known of one."""
    sets = [each for each in known if each is not None]
    return frozenset.intersection(*sets) if sets and len(sets) == len(known) else None


def _key_now(provider: ConfiguredProvider, environ: Mapping[str, str]) -> str:
    try:
        return find_key(provider.entry.api_key_variable, environ).value
    except CatalogueError:
        return ""


def _with_environment(entry: ProviderEntry, environ: Mapping[str, str]) -> ConfiguredProvider:
    base_url = (environ.get(entry.base_url_variable, "") if entry.base_url_variable else "") or entry.base_url
    missing = ""
    run_path = environ.get(entry.run_path_variable, "") or entry.run_path
    if environ.get(entry.mock_mode_variable, "").lower() in ("1", "true", "yes"):
        return ConfiguredProvider(entry, "", base_url, "", run_path, mock_mode=True)
    key = find_key(entry.api_key_variable, environ)
    if entry.api_key_variable and not key.value:
        missing = key.variable or entry.api_key_variable[0]
    elif entry.base_url_required and not base_url:
        missing = entry.base_url_variable
    return ConfiguredProvider(entry, key.value, base_url, missing, run_path, key_file=key.file)
