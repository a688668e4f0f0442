"""What a webhook is made of: signatures, sealed secrets, addresses, limits of its deliveries."""

from ipaddress import ip_address

import pytest

from services.cost.alerting.addresses import is_public, literal_address
from services.cost.alerting.alerts import Alert, AlertKind, unpriced
from services.cost.alerting.deliveries import RetryLimits
from services.cost.alerting.sealing import Sealer
from services.cost.alerting.signing import new_secret, signed_headers
from services.cost.alerting.webhooks import Webhook, check_budget_ids, check_mask, check_url
from services.runtime.errors import InvalidField, WrongState


def test_a_message_is_signed_as_the_specification_shows() -> None:
    # The example of the reference implementations' own tests (standard-webhooks, svix).
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330
    )
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


def test_a_sealed_secret_opens_only_with_its_key_and_for_its_owner() -> None:
    sealer = Sealer([b"k" * 32])
    sealed = sealer.seal("whsec_abc", "whk_1")
    assert b"whsec_abc" not in sealed
    assert sealed != sealer.seal("whsec_abc", "whk_1")
    assert Sealer([b"k" * 32]).open(sealed, "whk_1") == "whsec_abc"
    for other, owner in ((Sealer([b"x" * 32]), "whk_1"), (sealer, "whk_2")):
        with pytest.raises(WrongState, match="LLMLAB_COST_WEBHOOK_KEY"):
            other.open(sealed, owner)


def test_what_a_former_key_sealed_opens_and_is_sealed_with_the_key_in_use() -> None:
    old, new = b"o" * 32, b"n" * 32
    sealed = Sealer([old, new]).seal("whsec_abc", "whk_1")
    both = Sealer([new, old])
    assert both.open(sealed, "whk_1") == "whsec_abc"
    resealed = both.reseal(sealed, "whk_1")
    assert resealed is not None
    assert Sealer([new]).open(resealed, "whk_1") == "whsec_abc"
    assert both.reseal(resealed, "whk_1") is None
    with pytest.raises(WrongState):
        Sealer([b"x" * 32]).reseal(sealed, "whk_1")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_a_host_that_spells_out_an_address() -> None:
    assert literal_address("[::1]") == literal_address("::1") is not None
    assert literal_address("example.com") is None


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "https://example.com:8443", "https://8.8.8.8/"])
def test_urls_that_are_taken(url: str) -> None:
    assert check_url(url, "url", private=False) == url


def test_private_receivers_are_for_the_operator_to_allow() -> None:
    for url in ("http://example.com/", "https://127.0.0.1/", "https://[fe80::1]/"):
        assert check_url(url, "url", private=True) == url
        with pytest.raises(InvalidField):
            check_url(url, "url", private=False)


def test_what_a_webhook_wants() -> None:
    alert = Alert("alr_1", 1, 0, unpriced("a/b", 0))

    def webhook(kinds: tuple[AlertKind, ...] = (), budget_ids: tuple[str, ...] = (), *, disabled: bool = False) -> bool:
        return Webhook("whk_1", "prj_1", "https://a.b/", b"", kinds, budget_ids, disabled, 0).wants(alert)

    assert webhook()
    assert webhook((AlertKind.UNPRICED_MODEL,))
    assert not webhook((AlertKind.ANOMALY,))
    assert not webhook(budget_ids=("bud_1",))
    assert not webhook(disabled=True)


def test_choices_are_checked() -> None:
    assert check_budget_ids(["b", "a", "b"], "budget_ids") == ("a", "b")
    with pytest.raises(InvalidField):
        check_budget_ids([str(number) for number in range(51)], "budget_ids")
    assert check_mask(["url"], "mask") == ("url",)
    for paths in ([], ["secret"]):
        with pytest.raises(InvalidField, match="disabled"):
            check_mask(paths, "mask")


def test_a_delivery_has_a_bounded_number_of_attempts_in_a_bounded_time() -> None:
    limits = RetryLimits(attempts_max=3, window_us=100)
    assert not limits.is_over(2, 100, 99)
    assert limits.is_over(3, 100, 0)
    assert limits.is_over(1, 100, 100)
    # However late it begins, one attempt is made.
    assert not limits.is_over(0, 100, 1_000)
