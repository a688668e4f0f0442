"""Settings of the identity service."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, SecretStr, field_validator

from services.identity.passwords import MIN_MEMORY_KIB, MIN_TIME_COST
from services.runtime.settings import ServiceSettings

_SEED: Final = re.compile(r"[0-9a-fA-F]{64}")


class IdentitySettings(ServiceSettings, service="identity"):
    """LLMLAB_IDENTITY_..."""

    bootstrap_owner: bool = Field(
        default=True,
        description="On a loopback address: make an owner with an API key and write <home>/credentials.json.",
    )
    sign_up_enabled: bool = Field(default=True, description="Whether anybody may make an account.")

    access_token_life_s: int = Field(900, ge=300, le=900, description="Life of an access token, seconds.")
    session_life_s: int = Field(
        30 * 24 * 3600,
        ge=3600,
        le=365 * 24 * 3600,
        description="Seconds from a log-in to the next, however often renewed.",
    )
    max_sessions_per_user: int = Field(50, ge=1, description="Sessions that a person may have; the oldest end first.")

    key_environment: str = Field(
        "live", pattern=r"^[a-z0-9]{1,16}$", description="Second part of new API keys: llmlab_<environment>_..."
    )
    max_keys_per_project: int = Field(1_000, ge=1, description="Unrevoked API keys that a project may have.")

    signing_seeds: SecretStr = Field(
        SecretStr(""),
        description="Ed25519 seeds, 64 hex digits each, comma-separated: the first signs, all are published. "
        "Empty: keys are made, rotated and kept in the database.",
    )
    signing_key_life_s: int = Field(30 * 24 * 3600, ge=3600, description="Seconds that a made key signs.")
    signing_key_ahead_s: int = Field(
        24 * 3600, ge=60, description="Seconds that a made key is published before it signs; less than its life."
    )
    renew_interval_s: float = Field(60.0, gt=0, description="Seconds between two looks at keys and sessions.")

    argon2_time_cost: int = Field(MIN_TIME_COST, ge=MIN_TIME_COST, description="Passes of one password hash.")
    argon2_memory_kib: int = Field(MIN_MEMORY_KIB, ge=MIN_MEMORY_KIB, description="Memory of one password hash, KiB.")
    argon2_parallelism: int = Field(1, ge=1, le=16, description="Lanes of one password hash.")
    max_waiting_hashes: int = Field(64, ge=1, description="Password hashes that may wait; more are refused.")

    email_attempts: int = Field(10, ge=1, description="Failed log-ins for one address at once.")
    email_attempt_interval_s: float = Field(30.0, gt=0, description="After them, seconds from one attempt to the next.")
    peer_attempts: int = Field(50, ge=1, description="Failed log-ins, and sign-ups, from one peer at once.")
    peer_attempt_interval_s: float = Field(5.0, gt=0, description="After them, seconds from one attempt to the next.")
    max_throttled_keys: int = Field(100_000, ge=1, description="Addresses, and peers, whose attempts are remembered.")

    @field_validator("signing_seeds")
    @classmethod
    def _check_seeds(cls, value: SecretStr) -> SecretStr:
        for seed in _split(value):
            if not _SEED.fullmatch(seed):
                raise ValueError("each seed has 64 hex digits; make one with: openssl rand -hex 32")
        return value

    @property
    def fixed_seeds(self) -> list[bytes]:
        """The seeds of `signing_seeds`."""
        return [bytes.fromhex(seed) for seed in _split(self.signing_seeds)]


def _split(value: SecretStr) -> list[str]:
    return [part.strip() for part in value.get_secret_value().split(",") if part.strip()]
