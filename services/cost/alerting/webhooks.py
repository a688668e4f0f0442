"""Webhooks: receivers of alerts outside of the system, with what they want to hear."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.cost.alerting.addresses import is_public, literal_address
from services.cost.alerting.alerts import Alert, AlertKind
from services.runtime.errors import InvalidField

URL_LENGTH_MAX = 2_048
BUDGETS_MAX = 50
UPDATABLE_FIELDS = ("url", "kinds", "budget_ids", "disabled")

_UNWRITTEN = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
"""Characters that no URL contains and that parsers disagree about."""


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How a webhook's deliveries fare. Times are microseconds UTC; 0 means never."""

    last_attempt_us: int = 0
    last_success_us: int = 0
    last_http_status: int = 0
    last_error: str = ""
    failures: int = 0
    """Failed attempts since the last success."""
    pending: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of alerts."""

    webhook_id: str
    project_id: str
    url: str
    sealed_secret: bytes
    kinds: tuple[AlertKind, ...]
    """Empty: all."""
    budget_ids: tuple[str, ...]
    """Empty: all, and what is about no budget."""
    disabled: bool
    created_us: int
    status: WebhookStatus = WebhookStatus()

    def wants(self, alert: Alert) -> bool:
        """Whether an alert of its project is to be delivered to it."""
        if self.disabled or (self.kinds and alert.what.kind not in self.kinds):
            return False
        return not self.budget_ids or alert.budget_id in self.budget_ids


def check_url(url: str, field: str, *, private: bool) -> str:
    """A URL that alerts may be posted to; InvalidField names `field`.

    Where `private` is off it has to be https, and must not name an address that is not public. What a host name leads
    to is checked whenever something is sent.
    """
    if len(url) > URL_LENGTH_MAX or _UNWRITTEN.search(url):
        raise InvalidField(field, f"A URL has at most {URL_LENGTH_MAX:,} characters, without spaces and backslashes.")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise InvalidField(field, "This is not a URL; write one such as https://example.com/alerts.") from None
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise InvalidField(field, "This is no URL of a web server; write one such as https://example.com/alerts.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidField(field, "Leave user, password and fragment out of the URL; messages are signed instead.")
    if not private:
        _check_public(parts.scheme, host, field)
    return url


def _check_public(scheme: str, host: str, field: str) -> None:
    remedy = "an operator can allow it with LLMLAB_COST_WEBHOOK_PRIVATE_RECEIVERS=true."
    if scheme != "https":
        raise InvalidField(field, f"The URL has to begin with https://; {remedy}")
    address = literal_address(host)
    if address is not None and not is_public(address):
        raise InvalidField(field, f"{host} is not a public address; {remedy}")


def check_budget_ids(budget_ids: Iterable[str], field: str) -> tuple[str, ...]:
    """At most 50 different ids, sorted; InvalidField names `field`. Whether they exist is the store's question."""
    distinct = tuple(sorted(set(budget_ids)))
    if len(distinct) > BUDGETS_MAX:
        raise InvalidField(field, f"Name at most {BUDGETS_MAX} budgets; name none to hear of all.")
    return distinct


def check_mask(paths: Iterable[str], field: str) -> tuple[str, ...]:
    """The fields that an update names; InvalidField for none, or for one that cannot be changed."""
    named = tuple(paths)
    names = ", ".join(UPDATABLE_FIELDS)
    if not named:
        raise InvalidField(field, f"Name the fields to change: {names}.")
    for path in named:
        if path not in UPDATABLE_FIELDS:
            raise InvalidField(field, f"{path!r} cannot be changed; these can: {names}.")
    return named
