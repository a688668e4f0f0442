"""The other end of a webhook: one HTTP POST over aiohttp, to an address that was checked.

aiohttp is imported where it is used: loading it takes a tenth of a service's start, and most servers have no webhook.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from services.cost.alerting.addresses import is_public
from services.cost.alerting.deliveries import ERROR_LENGTH_MAX, Outcome

if TYPE_CHECKING:
    import aiohttp

_HEADERS = {"content-type": "application/json", "user-agent": "llmlab-webhooks/1"}


class RefusedAddressError(OSError):
    """A URL leads to an address that must not be sent to."""


def _public_socket(found: tuple[Any, ...]) -> socket.socket:
    """A socket for an address as getaddrinfo gives it.

    The check is made where the connection is, on the address that it goes to: no second look-up of the name, and no
    other spelling of an address, can lead elsewhere.
    """
    family, kind, protocol, _, address = found
    if not is_public(ip_address(str(address[0]).partition("%")[0])):
        raise RefusedAddressError("the URL leads to an address that is not public; this server does not send there")
    return socket.socket(family=family, type=kind, proto=protocol)


class HttpReceivers:
    """Posts messages; each has a connection of its own, no redirect is followed and no answer's body is read."""

    def __init__(self, *, timeout_s: float, private: bool) -> None:
        """`timeout_s` bounds an attempt as a whole; `private` lets it go to addresses that are not public."""
        self._timeout_s = timeout_s
        self._private = private
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send one message, once."""
        if not self._private and urlsplit(url).scheme != "https":
            return Outcome(error="the URL is not https; this server does not send there")
        # Not on the event loop, which others wait for, and not in the receiver's time.
        await asyncio.to_thread(importlib.import_module, "aiohttp")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Outcome(error=f"no answer within {self._timeout_s:g} s")

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        import aiohttp

        try:
            async with self._opened().post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return _outcome_of(answer.status)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(error=_text_of(error))

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,
                force_close=True,
                use_dns_cache=False,
                socket_factory=None if self._private else _public_socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _outcome_of(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status)
    if 300 <= status < 400:
        return Outcome(status, f"the receiver answered {status}; redirects are not followed, so register the final URL")
    return Outcome(status, f"the receiver answered {status}")


def _text_of(error: Exception) -> str:
    """What went wrong in a few words; an error of a connection stands before its cause."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error.os_error, RefusedAddressError):
        return f"no connection: {error.os_error.strerror or error.os_error}"[:ERROR_LENGTH_MAX]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RefusedAddressError):
            return str(cause)
        cause = cause.__cause__
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH_MAX]
