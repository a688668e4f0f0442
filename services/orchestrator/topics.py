"""Topics of wake-up hints between the parts and replicas of this service."""

from __future__ import annotations

WORK_TOPIC = "work"
"""Runs were started or cancelled: workers look for what to do."""


def run_topic(run_id: str) -> str:
    """A run has new events: its watchers read them."""
    return f"run:{run_id}"
