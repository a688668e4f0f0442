"""Accounts: addresses, names, roles, and what may be granted."""

import pytest

from services.identity.accounts import ALL_PERMISSIONS, Role, checked_name, granted, normalized_email
from services.runtime.errors import InvalidField, PermissionDenied


@pytest.mark.parametrize(
    ("written", "stored"), [("Ada@Example.ORG", "ada@example.org"), ("  grace@navy.mil ", "grace@navy.mil")]
)
def test_an_address_is_found_however_it_is_written(written: str, stored: str) -> None:
    assert normalized_email(written) == stored


@pytest.mark.parametrize(
    "address", ["", "ada", "@b", "a@", "a@b@c", "a b@c", "a\x00@b", "a" * 65 + "@b", "a@" + "b" * 253]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidField) as caught:
        normalized_email(address)
    assert caught.value.field == "email"


def test_a_name_is_trimmed_and_bounded() -> None:
    assert checked_name("name", "  Ada ") == "Ada"
    for name in (" ", "x" * 101):
        with pytest.raises(InvalidField) as caught:
            checked_name("name", name)
        assert caught.value.field == "name"


def test_roles_allow_less_and_less() -> None:
    owner, admin, member, viewer = (role.permissions for role in (Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER))
    assert owner == admin == ALL_PERMISSIONS
    assert owner > member > viewer
    assert "MANAGE" not in member
    assert viewer == {"READ"}


def test_nobody_grants_what_they_lack() -> None:
    with pytest.raises(PermissionDenied, match="MANAGE"):
        granted(frozenset({"READ", "MANAGE"}), Role.MEMBER.permissions)


def test_a_service_credential_cannot_be_passed_on() -> None:
    with pytest.raises(PermissionDenied, match="SERVICE"):
        granted(frozenset({"SERVICE"}), frozenset({"SERVICE", "READ"}))


def test_without_a_wish_a_key_may_do_all_but_manage() -> None:
    assert granted(frozenset(), ALL_PERMISSIONS) == {"READ", "WRITE", "CALL"}
    assert granted(frozenset(), Role.VIEWER.permissions) == {"READ"}
    assert granted(frozenset({"MANAGE"}), ALL_PERMISSIONS) == {"MANAGE"}
