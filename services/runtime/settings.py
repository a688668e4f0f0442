"""Settings that every service shares: typed, documented, read once from the environment.

A field `port` of the gateway is read from `LLMLAB_GATEWAY_PORT` and, where that is absent, from `LLMLAB_PORT`. An empty
variable counts as absent.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

ENVIRONMENT_PREFIX = "LLMLAB_"

DEFAULT_PORTS: Mapping[str, int] = {
    "gateway": 7410,
    "orchestrator": 7411,
    "metrics": 7412,
    "cost": 7413,
    "identity": 7414,
}
"""Port of each service where no setting says otherwise."""


class SettingsError(Exception):
    """A setting is missing, malformed or cannot be obeyed. The message is one line and names the variable."""


class ServiceSettings(BaseSettings):
    """Base of a service's settings: `class CostSettings(ServiceSettings, service="cost")`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True, validate_default=True)
    service: ClassVar[str] = "runtime"

    host: str = Field("127.0.0.1", description="Address to listen on. One that is not loopback needs authentication.")
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    home: Path = Field(Path("~/.llmlab"), description="Directory of local state: SQLite files, credentials.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: a SQLite file <home>/<service>.db.")
    database_pool_size: int = Field(8, ge=1, description="PostgreSQL connections of this process.")
    database_prepared_statements: bool = Field(
        default=True,
        description="Prepare statements in PostgreSQL; false behind a PgBouncer that keeps none for its clients "
        "(pool_mode=transaction with max_prepared_statements=0).",
    )
    redis_url: str = Field("", description="Redis that replicas share; empty: this process alone, in memory.")

    gateway_target: str = Field("127.0.0.1:7410", description="gRPC target of the gateway.")
    metrics_target: str = Field("127.0.0.1:7412", description="gRPC target of the metrics service.")
    cost_target: str = Field("127.0.0.1:7413", description="gRPC target of the cost service.")
    identity_target: str = Field("127.0.0.1:7414", description="gRPC target of identity; it has the signing keys.")

    auth_required: bool = Field(default=True, description="False lets anybody do anything; allowed on loopback only.")
    auth_service_key: SecretStr = Field(
        SecretStr(""),
        description="Ed25519 seed that the services share, 64 hex digits: openssl rand -hex 32. While it is changed up "
        "to three, with commas between them: the first is in use, all are accepted.",
    )
    auth_token_cache_size: int = Field(10_000, ge=1, description="Verified tokens that are remembered.")
    auth_keys_refetch_s: float = Field(5.0, ge=0, description="Shortest time between two fetches of signing keys.")
    auth_stream_grace_s: float = Field(
        600.0, ge=0, description="Seconds that a finite stream may outlive its credential; an endless one gets none."
    )

    max_message_bytes: int = Field(8 * 1024 * 1024, ge=1024, description="Largest message, either direction, bytes.")
    max_concurrent_rpcs: int = Field(1_000, ge=1, description="Calls in progress, streams aside; more are refused.")
    max_streams: int = Field(1_000, ge=1, description="Server streams in progress; more are refused.")
    overload_retry_ms: int = Field(500, ge=1, description="When an overloaded server asks its caller to come back.")
    validate_off_loop_bytes: int = Field(65_536, ge=1, description="Larger requests are validated in a thread.")

    default_deadline_ms: int = Field(30_000, ge=1, description="Deadline of a call to a peer when none is given.")
    default_stream_deadline_ms: int = Field(
        3_600_000, ge=1, description="Deadline of a stream from a peer when none is given."
    )
    retry_attempts: int = Field(4, ge=1, le=5, description="Attempts of an idempotent call to a peer; 1: no retry.")
    keepalive_s: float = Field(30.0, ge=1, description="Seconds between keepalive pings, on servers and channels.")
    keepalive_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for a ping's answer.")
    max_connection_age_s: float = Field(1_800.0, gt=0, description="A connection is closed gently at this age.")
    max_connection_age_grace_s: float = Field(
        900.0, gt=0, description="Seconds that calls on a closing connection get; more than the longest call."
    )
    grace_s: float = Field(30.0, gt=0, description="Seconds from SIGTERM until calls in progress are cut.")

    health_port: int | None = Field(
        None, ge=0, le=65535, description="Port that answers health checks only, without TLS, for probes; empty: none."
    )
    health_interval_s: float = Field(5.0, gt=0, description="Seconds between two rounds of readiness checks.")
    health_timeout_s: float = Field(2.0, gt=0, description="Longest readiness check; a longer one has failed.")
    reflection: bool = Field(default=True, description="Serve gRPC reflection, for grpcurl and buf curl.")
    channelz: bool = Field(default=False, description="Serve channelz, gRPC's view of its sockets.")

    tls_certificate: Path | None = Field(None, description="PEM chain of this process; with tls_key: TLS is on.")
    tls_key: Path | None = Field(None, description="PEM private key of tls_certificate.")
    tls_ca: Path | None = Field(None, description="PEM roots that peers are checked against; on a server: mutual TLS.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG logs every RPC.")
    log_format: Literal["text", "json"] = Field("text", description="One line or one JSON object per record.")
    telemetry_port: int | None = Field(
        None, ge=0, le=65535, description="Port of GET /metrics for Prometheus, without TLS; empty: none."
    )
    telemetry: bool = Field(
        default=True, description="Count RPCs and measure their time and the loop's lag in process."
    )
    trace_endpoint: str = Field(
        "", description="Collector that takes spans by OTLP over gRPC: http://127.0.0.1:4317; empty: none."
    )
    trace_file: Path | None = Field(None, description="File that spans are appended to, one JSON object a line.")
    trace_ratio: float = Field(
        0.05, ge=0, le=1, description="Share of traces that are recorded where the caller has not decided about it."
    )
    trace_queue_max: int = Field(4_096, ge=1, description="Spans that wait for export; more are dropped and counted.")
    trace_flush_s: float = Field(2.0, gt=0, description="Longest wait of a stopping process for its last spans.")
    trace_texts: bool = Field(default=False, description="Put prompts and answers into the spans of model calls.")
    loop_lag_interval_s: float = Field(0.1, gt=0, description="Seconds between two probes of the loop's lag.")

    def __init_subclass__(cls, service: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if service:
            cls.service = service

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # The default port depends on the service; a plain default keeps `.env.example` and the docs truthful.
        field = cls.model_fields["port"]
        if field.default == 0 and cls.service in DEFAULT_PORTS:
            field.default = DEFAULT_PORTS[cls.service]
            cls.model_rebuild(force=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then LLMLAB_<SERVICE>_<FIELD>, then LLMLAB_<FIELD>."""
        own = EnvSettingsSource(settings_cls, env_prefix=f"{ENVIRONMENT_PREFIX}{cls.service.upper()}_")
        shared = EnvSettingsSource(settings_cls, env_prefix=ENVIRONMENT_PREFIX)
        return init_settings, own, shared

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable to name in an error about `field`: the one that is set, else the service's own.

        >>> ServiceSettings.variable("port")
        'LLMLAB_RUNTIME_PORT'
        """
        own = f"{ENVIRONMENT_PREFIX}{cls.service.upper()}_{field.upper()}"
        shared = f"{ENVIRONMENT_PREFIX}{field.upper()}"
        return shared if os.environ.get(shared) and not os.environ.get(own) else own

    @property
    def has_database(self) -> bool:
        """Whether the service keeps anything in a database of its own, as it is set."""
        return True

    @property
    def home_directory(self) -> Path:
        """`home` with `~` resolved."""
        return self.home.expanduser()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load_settings(settings_class: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read the settings from the environment; SettingsError names each variable that is wrong, never its value."""
    try:
        return settings_class(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(settings_class, problem) for problem in error.errors())) from None


def _describe(settings_class: type[ServiceSettings], problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"][:1]) or "settings"
    return f"{settings_class.variable(field)}: {problem['msg']}"
