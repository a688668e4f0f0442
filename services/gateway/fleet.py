"""The catalogue in force and the providers that it names; both are replaced together, under calls that go on.

A call leases one generation for its whole life, so that it never sees half of a change. Providers whose entry did not
change are kept with their connections; those that went are closed when the last call that may use them has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Self

from services.gateway.catalogue import Catalogue, ConfiguredProvider
from services.gateway.providers.port import Provider

BuildProvider = Callable[[ConfiguredProvider], Awaitable[Provider]]


@dataclass(slots=True)
class Generation:
    """One state of the catalogue, with its providers by name. Inside `with` they stay open, whatever replaces it."""

    catalogue: Catalogue
    providers: Mapping[str, Provider]
    _calls: int = 0
    _unused: asyncio.Event = field(default_factory=asyncio.Event)

    def __enter__(self) -> Self:
        self._calls += 1
        self._unused.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._unused.set()

    async def unused(self) -> None:
        """Wait until no call uses it."""
        if self._calls:
            await self._unused.wait()


class Fleet:
    """Holds the generation in force."""

    def __init__(self, build: BuildProvider, first: Generation | None = None) -> None:
        """`build` opens a provider; it is called for every entry that is new or changed."""
        self._build = build
        self._current = first or Generation(Catalogue({}), {})
        self._retiring: asyncio.Task[None] | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue in force."""
        return self._current.catalogue

    def lease(self) -> Generation:
        """The generation in force, for `with`."""
        return self._current

    async def replace(self, catalogue: Catalogue) -> None:
        """Put a catalogue into force; calls that begin from now on follow it."""
        old = self._current
        before = {provider.entry.name: _identity(provider) for provider in old.catalogue.configured}
        providers: dict[str, Provider] = {}
        async with AsyncExitStack() as opened:
            for configured in catalogue.configured:
                name = configured.entry.name
                if before.get(name) == _identity(configured):
                    providers[name] = old.providers[name]
                else:
                    providers[name] = await self._build(configured)
                    opened.push_async_callback(providers[name].close)
            opened.pop_all()
        self._current = Generation(catalogue, providers)
        dropped = [provider for provider in old.providers.values() if provider not in providers.values()]
        self._retiring = asyncio.create_task(_retire(old, dropped, self._retiring), name="retire-providers")

    async def close(self) -> None:
        """Close every provider. No call is under way any more."""
        if self._retiring is not None:
            await self._retiring
        for provider in self._current.providers.values():
            await provider.close()


def _identity(configured: ConfiguredProvider) -> ConfiguredProvider:
    """What a provider is built from: a change of its models alone needs no new one."""
    return replace(configured, entry=configured.entry.model_copy(update={"models": ()}))


async def _retire(old: Generation, dropped: list[Provider], before: asyncio.Task[None] | None) -> None:
    # A provider may be of several generations: those before have to be out of use too.
    if before is not None:
        await before
    await old.unused()
    for provider in dropped:
        await provider.close()
