"""Settings of the metrics service."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import ServiceSettings


class MetricsSettings(ServiceSettings, service="metrics"):
    """The metrics service. It keeps nothing; it calls the gateway where a model judges, and identity for its keys."""

    workers: int = Field(1, ge=0, le=64, description="Processes that compute; 0: one thread of the service's own.")
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
        3, ge=1, le=16, description="Ids, so paid calls at the most, that one verdict of a run's judge may use up."
    )
    max_text_characters: int = Field(
        1_000_000, ge=1, description="Longest prompt, answer or reference, in characters; a longer one is not scored."
    )
