"""How providers are shown."""

from __future__ import annotations

import io

from rich.console import Console

from llmlab.api.gateway.v1 import provider_pb2
from llmlab.cli.provider_commands import deployments_table


def test_the_breakers_of_a_providers_deployments_fit_a_narrow_screen() -> None:
    breaker = provider_pb2.CircuitBreaker(state=provider_pb2.CIRCUIT_STATE_OPEN, calls=12_345, error_rate=0.5)
    breaker.next_probe_at.FromSeconds(1_800_000_000)
    deployment = provider_pb2.DeploymentState(model="openai/gpt-4o-mini-2024-07-18", circuit_breaker=breaker)
    screen = io.StringIO()
    Console(file=screen, width=80).print(
        deployments_table([provider_pb2.Provider(name="openai", deployments=[deployment])])
    )
    line = screen.getvalue().splitlines()[1].split()
    assert line == ["openai/gpt-4o-mini-2024-07-18", "open", "12,345", "50%", "08:00:00", "UTC"]


def test_limits_are_shown_where_there_are_some() -> None:
    limit = provider_pb2.RateLimit(per_minute=600, burst=100, left=37)
    deployment = provider_pb2.DeploymentState(model="openai/gpt-4o", requests=limit)
    screen = io.StringIO()
    Console(file=screen, width=80).print(
        deployments_table([provider_pb2.Provider(name="openai", deployments=[deployment])])
    )
    heads, line = screen.getvalue().splitlines()
    assert "requests left" in heads
    assert line.split() == ["openai/gpt-4o", "37", "of", "100"]
