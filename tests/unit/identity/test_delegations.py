"""Delegations: they never outlive, nor exceed, what they came from."""

from dataclasses import replace

import pytest

from services.identity import delegations
from services.identity.delegations import Delegation
from services.runtime.errors import WrongState

NOW_US = 1_800_000_000_000_000
DELEGATION = Delegation(
    delegation_id="dlg_1",
    project_id="prj_1",
    user_id="usr_1",
    key_id="key_1",
    purpose="run_1",
    created_at_us=0,
    expires_at_us=NOW_US + 1,
    revoked_at_us=0,
)


def test_a_live_delegation_passes() -> None:
    delegations.check(DELEGATION, frozenset({"CALL", "READ"}), NOW_US)
    assert DELEGATION.is_live(NOW_US)


@pytest.mark.parametrize(
    ("delegation", "held", "how"),
    [
        (replace(DELEGATION, revoked_at_us=1), frozenset({"CALL"}), "revoked"),
        (replace(DELEGATION, expires_at_us=NOW_US), frozenset({"CALL"}), "expired"),
        (DELEGATION, frozenset({"READ", "WRITE"}), "membership"),
        (DELEGATION, frozenset(), "membership"),
    ],
)
def test_an_ended_one_says_how(delegation: Delegation, held: frozenset[str], how: str) -> None:
    with pytest.raises(WrongState, match=how) as caught:
        delegations.check(delegation, held, NOW_US)
    assert caught.value.reason == "DELEGATION_ENDED"


def test_it_is_not_live_after_its_end() -> None:
    assert not DELEGATION.is_live(NOW_US + 1)
    assert not replace(DELEGATION, revoked_at_us=5).is_live(NOW_US)
