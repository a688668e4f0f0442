"""Wake-up hints between tasks and replicas: "something changed under this topic, look now".

A hint carries no data and may be lost, doubled or late. Whoever waits for one also polls at its own interval, so a
lost hint costs that interval and nothing else. Hints that arrive while the waiter is busy melt into one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Subscription:
    """One waiter's view of its topics. Made by `Hints.subscribe`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Deliver a hint."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a hint that came since the last `wait`, at most `timeout_s`; False when none came: poll now."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._event.clear()
        return True


class Hints(Protocol):
    """Where hints are given and taken."""

    def publish(self, topic: str) -> None:
        """Wake whoever subscribes to `topic`, here and wherever the implementation reaches. Never blocks or fails."""
        ...

    def subscribe(self, *topics: str) -> contextlib.AbstractContextManager[Subscription]:
        """A subscription for the duration of a `with` block. Subscribe first, look at the data next, then wait."""
        ...


class LocalHints:
    """Hints inside this process: enough for one replica."""

    def __init__(self) -> None:
        # Dicts keep the order in which they came, so that what happens in virtual time can be replayed.
        self._subscriptions: defaultdict[str, dict[Subscription, None]] = defaultdict(dict)

    def publish(self, topic: str) -> None:
        """Wake the subscribers of `topic` in this process."""
        for subscription in self._subscriptions.get(topic, ()):
            subscription.wake()

    def wake_all(self) -> None:
        """Wake every subscriber: hints may have been missed."""
        for topic in list(self._subscriptions):
            self.publish(topic)

    @contextmanager
    def subscribe(self, *topics: str) -> Iterator[Subscription]:
        """Receive hints for `topics` inside the `with` block."""
        subscription = Subscription()
        for topic in topics:
            self._subscriptions[topic][subscription] = None
        try:
            yield subscription
        finally:
            for topic in topics:
                self._subscriptions[topic].pop(subscription, None)
                if not self._subscriptions[topic]:
                    del self._subscriptions[topic]
