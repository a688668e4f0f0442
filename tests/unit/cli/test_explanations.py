"""What a person reads where a service refuses, or where options do not go together."""

from __future__ import annotations

import pytest
import typer

from llmlab.api.cost.v1 import budget_pb2, price_pb2, spend_pb2
from llmlab.cli.app import CommandError, run_async
from llmlab.cli.contract import bounds_of, items_max
from llmlab.cli.options import refuse
from llmlab.client import InvalidRequestError, LlmlabError

RULE = "must be at most 100 characters"


def told(error: LlmlabError, capsys: pytest.CaptureFixture[str]) -> str:
    async def command() -> None:
        raise error

    with pytest.raises(typer.Exit):
        run_async(command())
    return capsys.readouterr().err


def refusal(message: str, **fields: str) -> LlmlabError:
    return InvalidRequestError(message, reason="INVALID_FIELD", code="INVALID_ARGUMENT", fields=fields)


def test_a_broken_rule_is_told_once_by_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(refusal(f"budget.name: {RULE}", **{"budget.name": RULE}), capsys)
    assert text == f"error: --name: {RULE}\n  (INVALID_FIELD)\n"


def test_words_of_the_service_stay_and_the_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = "Give at most 10 thresholds; these are 11."
    assert f"error: {said}\n  at --threshold\n" in told(refusal(said, **{"budget.thresholds_percent[3]": said}), capsys)


def test_several_fields_are_all_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(refusal(f"spec.a: {RULE} (and 1 more)", **{"spec.a": RULE, "filter.tag": RULE}), capsys)
    assert f"spec.a: {RULE}\n--tag: {RULE}\n" in text


def test_options_that_would_do_nothing_are_refused() -> None:
    refuse("can only be used with --watch", after=0)
    with pytest.raises(CommandError, match="--time-zone and --period can only be used with --budget"):
        refuse("can only be used with --budget", time_zone="UTC", period="daily", level=None)


def test_bounds_come_from_the_contract() -> None:
    assert bounds_of(budget_pb2.Budget.DESCRIPTOR, "limit_nano_usd") == (1, 10**15)
    assert bounds_of(budget_pb2.Budget.DESCRIPTOR, "thresholds_percent") == (1, 1_000)
    assert bounds_of(price_pb2.EstimateItem.DESCRIPTOR, "calls") == (0, 1_000_000)
    assert items_max(spend_pb2.SummarizeSpendRequest.DESCRIPTOR, "group_by") == 4
