"""Settings of the metrics service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pydantic import Field, field_validator

from services.runtime.settings import ServiceSettings

_REMOTE: Final = re.compile(r"([a-z][a-z0-9_-]{0,63})=([^\s,;=]+:[0-9]{1,5})")


class MetricsSettings(ServiceSettings, service="metrics"):
    """The metrics service. It keeps nothing; it calls the gateway where a model judges, and identity for its keys."""

    workers: int = Field(1, ge=0, le=64, description="Processes that compute; 0: one thread of the service's own.")
    workers_start_early: bool = Field(
        default=True, description="Start these processes with the service; false: with the first work."
    )
    max_waiting_tasks: int = Field(256, ge=1, description="Tasks that may wait for a worker; more are refused.")
    samples_per_task: int = Field(32, ge=1, le=256, description="Samples that a worker scores in one go.")
    characters_per_task: int = Field(
        200_000, ge=1, description="Characters after which a task takes no further sample, so that long texts spread."
    )
    judge_max_calls: int = Field(512, ge=2, le=4096, description="Paid calls that one request for judgements may make.")
    judge_calls_at_once: int = Field(
        64, ge=1, le=1024, description="Calls that one request for scores by a judge has under way."
    )
    judge_call_ids_max: int = Field(
        3,
        ge=1,
        le=16,
        description="Ids, so paid calls at the most, of one verdict or call for embeddings of a run.",
    )
    embedding_calls_at_once: int = Field(
        4, ge=1, le=256, description="Calls that one request for scores by embeddings has under way, per scorer."
    )
    max_text_characters: int = Field(
        1_000_000, ge=1, description="Longest prompt, answer or reference, in characters; a longer one is not scored."
    )
    remote_scorers: str = Field(
        "",
        description="Remote scorers that requests may name, as name=host:port, separated by commas; no other server is "
        "ever asked.",
    )
    remote_timeout_ms: int = Field(10_000, ge=1, le=600_000, description="Longest call of a remote scorer.")
    remote_batch_max: int = Field(64, ge=1, le=64, description="Answers that a remote scorer is asked about at once.")
    remote_max_in_flight: int = Field(4, ge=1, le=256, description="Batches under way at one remote scorer.")

    @field_validator("remote_scorers")
    @classmethod
    def _check_remote_scorers(cls, text: str) -> str:
        names = [_remote(entry)[0] for entry in _entries(text)]
        if len(set(names)) < len(names):
            raise ValueError("each remote scorer needs a name of its own")
        return text

    @property
    def remote_targets(self) -> Mapping[str, str]:
        """The gRPC target of each remote scorer, by name."""
        return dict(_remote(entry) for entry in _entries(self.remote_scorers))


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _remote(entry: str) -> tuple[str, str]:
    found = _REMOTE.fullmatch(entry)
    if not found:
        raise ValueError(
            "each remote scorer is name=host:port, the name in lower case; several are separated by commas"
        )
    return found[1], found[2]
