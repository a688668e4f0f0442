"""Digests of what callers say: stable through the growth of the payloads, different for different content."""

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


def test_steps_and_tier_are_part_of_a_settlement() -> None:
    usage = SETTLEMENT.usage
    assert usage is not None
    digests = {
        SETTLEMENT.digest(),
        SETTLEMENT._replace(usage=usage._replace(steps=1)).digest(),
        SETTLEMENT._replace(service_tier="batch").digest(),
        SETTLEMENT._replace(service_tier="flex").digest(),
    }
    assert len(digests) == 4


def test_steps_tier_and_metadata_are_part_of_a_report() -> None:
    digests = {
        REPORT.digest(),
        REPORT._replace(usage=REPORT.usage._replace(steps=1)).digest(),
        REPORT._replace(service_tier="batch").digest(),
        REPORT._replace(service_tier="flex").digest(),
        REPORT._replace(metadata=(("a", "b"),)).digest(),
    }
    assert len(digests) == 5
