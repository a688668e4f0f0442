"""Settings of services whose feeds are watched."""

from __future__ import annotations

from pydantic import Field

from services.runtime.feeds import WatchPolicy
from services.runtime.settings import ServiceSettings


class WatchSettings(ServiceSettings):
    """What `services.runtime.feeds` can be told."""

    watch_flush_ms: int = Field(100, ge=1, description="Shortest time between two messages to a watcher.")
    watch_messages_per_s: int = Field(
        100, ge=1, description="Messages to all watchers of one thing: of many each hears less often, more at a time."
    )
    watch_poll_ms: int = Field(500, ge=10, description="How often events are looked for that nobody hinted at.")
    watch_heartbeat_ms: int = Field(15_000, ge=100, description="A watcher hears at least so often.")
    watch_page_events: int = Field(1_000, ge=1, le=10_000, description="Events of one message to a watcher.")
    watch_queue_max: int = Field(
        100, ge=1, description="Messages that a watcher may be behind before it has to resume."
    )

    def watch_policy(self) -> WatchPolicy:
        """How feeds are watched."""
        return WatchPolicy(
            page_events=self.watch_page_events,
            flush_ms=self.watch_flush_ms,
            messages_per_s=self.watch_messages_per_s,
            poll_ms=self.watch_poll_ms,
            heartbeat_ms=self.watch_heartbeat_ms,
            queue_max=self.watch_queue_max,
        )
