"""Named places where a test makes a process fail, as rows of the crash table do.

    LLMLAB_FAILPOINTS="orchestrator.after_sent=kill@3;cost.after_commit=error;gateway.before_send=sleep:200"

Each entry is `name=kind[@N]`: `kill` (SIGKILL to this process), `error` (raises FailpointError), `sleep:MS` (blocks for
so long). With `@N` only the N-th hit acts, else every hit does. Without the variable a failpoint costs one look-up.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "LLMLAB_FAILPOINTS"


class FailpointError(Exception):
    """What a failpoint of the kind `error` raises. No code may catch it by name."""


@dataclass(frozen=True, slots=True)
class _Action:
    kind: str
    sleep_ms: float = 0.0
    only_hit: int | None = None


class Failpoints:
    """The failpoints that are armed in a process, and how often each was hit."""

    def __init__(self, specification: str = "") -> None:
        """Raises ValueError where the specification is malformed."""
        self.actions = _parse(specification)
        self._hits: dict[str, int] = dict.fromkeys(self.actions, 0)

    @property
    def hits(self) -> Mapping[str, int]:
        """Hits of each armed failpoint."""
        return dict(self._hits)

    def hit(self, name: str) -> None:
        """Pass the failpoint: nothing happens unless it is armed."""
        action = self.actions.get(name)
        if action is None:
            return
        self._hits[name] += 1
        if action.only_hit is not None and action.only_hit != self._hits[name]:
            return
        if action.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action.kind == "sleep":
            time.sleep(action.sleep_ms / 1_000)
        else:
            message = f"failpoint {name}, hit {self._hits[name]}"
            raise FailpointError(message)


def _parse(specification: str) -> dict[str, _Action]:
    actions = {}
    for entry in filter(None, (part.strip() for part in specification.split(";"))):
        name, _, what = entry.partition("=")
        kind_and_value, at, hit = what.partition("@")
        kind, _, value = kind_and_value.partition(":")
        try:
            action = _Action(kind, float(value) if kind == "sleep" else 0.0, int(hit) if at else None)
        except ValueError:
            action = _Action("malformed")
        if not name or action.kind not in {"kill", "error", "sleep"}:
            message = f"{VARIABLE}: {entry!r} is not name=kill|error|sleep:MS[@N]"
            raise ValueError(message)
        actions[name] = action
    return actions


_armed = Failpoints(os.environ.get(VARIABLE, ""))


def failpoint(name: str) -> None:
    """Pass the failpoint `name` of this process."""
    if name in _armed.actions:
        _armed.hit(name)


def arm(specification: str) -> Failpoints:
    """Replace this process's failpoints, for tests in one process; "" disarms. Returns them, to read their hits."""
    global _armed  # noqa: PLW0603 (the environment is per process, and so is this)
    _armed = Failpoints(specification)
    return _armed
