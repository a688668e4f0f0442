"""Digests of what callers say: stable through the growth of the payloads, different for different content."""

from dataclasses import replace

import pytest

from services.cost.events import Settlement, UsageReport
from services.cost.usage import Attribution, Usage, UsageSource

SETTLEMENT = Settlement(
    "a/1", Usage(input_tokens=3, output_tokens=2, source=UsageSource.MEASURED), "gpt-4o-2024-08-06", 7, succeeded=True
)
REPORT = UsageReport(
    "e1", "app", "openai", "gpt-4o", Usage(input_tokens=3), Attribution("usr_1", tags=(("a", "b"),)), 7
)


def test_digests_from_before_steps_and_tiers_stay_valid() -> None:
    assert SETTLEMENT.digest().hex() == "cec0a28a3d4aab1291b942e1b7c22983"
    assert REPORT.digest().hex() == "0a975a7899b64f43ddb6578b1ab744dc"


@pytest.mark.parametrize("said", [SETTLEMENT, REPORT])
def test_steps_and_tier_are_part_of_the_payload(said: Settlement | UsageReport) -> None:
    usage = said.usage
    assert usage is not None
    digests = {
        said.digest(),
        replace(said, usage=replace(usage, steps=1)).digest(),
        replace(said, service_tier="batch").digest(),
        replace(said, service_tier="flex").digest(),
    }
    assert len(digests) == 4
