"""Webhooks' secrets while the key that encrypts them is changed, on both databases."""

from services.cost.alerting.sealing import Sealer
from services.cost.alerting.webhooks import Webhook
from services.cost.store.webhooks import WebhookStore
from tests.support.cost_store import PROJECT, Cost

OLD, NEW, LOST = b"o" * 32, b"n" * 32, b"l" * 32
# In the order of their ids; the page that is sealed anew at once is smaller.
SEALED_WITH = {"whk_1": OLD, "whk_2": NEW, "whk_3": LOST, "whk_4": OLD, "whk_5": OLD}


async def test_what_a_former_key_encrypted_is_encrypted_with_the_one_in_use(cost: Cost) -> None:
    store = WebhookStore(cost.database, max_per_project=10, max_setting="LIMIT")
    before = {name: Sealer([key]).seal(f"secret of {name}", name) for name, key in SEALED_WITH.items()}
    for name, sealed in before.items():
        await store.create(Webhook(name, PROJECT, "https://example.com", sealed, (), (), disabled=False, created_us=0))
    both = Sealer([NEW, OLD])

    assert await store.reseal(both, 2) == 3
    assert await store.reseal(both, 2) == 0

    after = {webhook.webhook_id: webhook.sealed_secret for webhook in await store.page(PROJECT, after_id="", limit=10)}
    opened = {name: Sealer([NEW]).open(sealed, name) for name, sealed in after.items() if name != "whk_3"}
    assert opened == {name: f"secret of {name}" for name in SEALED_WITH if name != "whk_3"}
    assert {name for name in before if after[name] == before[name]} == {"whk_2", "whk_3"}
