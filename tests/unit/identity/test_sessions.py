"""Sessions: what a refresh token leads to in each state."""

from dataclasses import replace

import pytest

from services.identity import sessions
from services.identity.sessions import Outcome, RefreshToken, Session

NOW_US = 1_800_000_000_000_000
SESSION = Session("ses_1", "usr_1", "prj_1", created_at_us=0, expires_at_us=NOW_US + 1, revoked_at_us=0)
TOKEN = RefreshToken(bytes(32), "ses_1", issued_at_us=0, used_at_us=0)
USED = replace(TOKEN, used_at_us=1)


@pytest.mark.parametrize(
    ("token", "session", "outcome"),
    [
        (TOKEN, SESSION, Outcome.RENEW),
        (USED, SESSION, Outcome.REVOKE),
        (TOKEN, replace(SESSION, expires_at_us=NOW_US), Outcome.EXPIRED),
        (USED, replace(SESSION, expires_at_us=NOW_US), Outcome.REVOKE),
        (TOKEN, replace(SESSION, revoked_at_us=1), Outcome.UNKNOWN),
        (USED, replace(SESSION, revoked_at_us=1), Outcome.UNKNOWN),
        (None, None, Outcome.UNKNOWN),
    ],
)
def test_the_outcome(token: RefreshToken | None, session: Session | None, outcome: Outcome) -> None:
    assert sessions.judge(token, session, NOW_US) is outcome


def test_each_refusal_has_its_reason() -> None:
    reasons = [sessions.refused(outcome).reason for outcome in (Outcome.REVOKE, Outcome.EXPIRED, Outcome.UNKNOWN)]
    assert reasons == ["REFRESH_REUSED", "CREDENTIAL_EXPIRED", "CREDENTIAL_INVALID"]


def test_a_refresh_token_is_random_and_known_by_its_digest() -> None:
    made = {sessions.new_refresh_token() for _ in range(200)}
    assert len(made) == 200
    assert len({sessions.digest(text) for text in made}) == 200
    assert all(text.startswith("llmlab_refresh_") for text in made)
