"""Results over the wire: read, listed, compared, exported."""

from __future__ import annotations

import csv
import io
import json

import pytest

from llmlab.api.common.v1 import error_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.metrics.v1 import metrics_pb2
from llmlab.api.orchestrator.v1 import comparison_pb2 as cpb
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator import parquet
from services.orchestrator.calls import Answer, Failure, PlannedCall
from services.orchestrator.rpc import exporting
from services.orchestrator.rpc.specs import spec_message
from tests.support.orchestrator import (
    answer,
    failure,
    study,
)
from tests.support.orchestrator_rpc import Client, refusal


def some_fail(call: PlannedCall) -> Answer | Failure:
    """The large model refuses; the small one answers, in one case with what a spreadsheet would run."""
    if call.plan.model == "mock/large":
        return failure("CONTENT_POLICY", retryable=False)
    return answer('=HYPERLINK("x")' if "word 0" in call.messages[0][1] else "fine")


async def test_results_are_read_listed_filtered_and_paged(client: Client) -> None:
    client.world.script = some_fail
    run = await client.finished()
    one = (await client.results.GetResult(pb.GetResultRequest(run_id=run.run_id, cell_index=1))).result

    assert one.request[0].parts[0].text == "Say word 0"
    assert one.response[0].text == '=HYPERLINK("x")'
    assert (one.model, one.parameters["temperature"].double_value) == ("mock/small", 1.0)
    assert (one.finish_reason, one.timing.latency_us) == (gateway_pb2.FINISH_REASON_STOP, 1_000)
    assert [score.name for score in one.scores] == ["length.words", "is_fine"]
    for size in (1, 3, 16, 100):
        pages = await client.pages(size, run_id=run.run_id)
        assert [each.cell_index for page in pages for each in page] == list(range(16))
        assert all(len(page) == size for page in pages[:-1])
        assert not any(each.request or each.response for page in pages for each in page)
    failed = (await client.pages(100, run_id=run.run_id, statuses=[pb.CELL_STATUS_FAILED]))[0]
    large = (await client.pages(100, run_id=run.run_id, models=["mock/large"], full=True))[0]
    assert [each.cell_index for each in failed] == [each.cell_index for each in large]
    assert len(failed) == 8
    assert large[0].request
    assert await client.pages(100, run_id=run.run_id, models=["nobody"]) == [[]]


async def test_results_are_listed_in_every_order_and_by_prompt_and_reason(client: Client) -> None:
    client.world.script = some_fail
    run = await client.finished()
    for order in pb.ResultOrder.values():
        listed: dict[int, list[int]] = {}
        for size in (3, 100):
            token, listed[size] = "", []
            while True:
                page = await client.results.ListResults(
                    pb.ListResultsRequest(
                        filter=pb.ResultFilter(run_id=run.run_id), order=order, page_size=size, page_token=token
                    )
                )
                listed[size] += [each.cell_index for each in page.results]
                token = page.next_page_token
                if not token:
                    break
        assert listed[3] == listed[100]
        # Cells without an answer have neither a latency nor scores.
        answers = order in (
            pb.RESULT_ORDER_FASTEST_FIRST,
            pb.RESULT_ORDER_SLOWEST_FIRST,
            pb.RESULT_ORDER_BEST_FIRST,
            pb.RESULT_ORDER_WORST_FIRST,
        )
        assert len(set(listed[100])) == len(listed[100]) == (8 if answers else 16)
    assert len((await client.pages(100, run_id=run.run_id, prompts=["ask"]))[0]) == 16
    assert await client.pages(100, run_id=run.run_id, prompts=["another"]) == [[]]
    reasons = [error_pb2.ERROR_REASON_CONTENT_POLICY]
    assert len((await client.pages(100, run_id=run.run_id, error_reasons=reasons))[0]) == 8
    reasons = [error_pb2.ERROR_REASON_RATE_LIMITED]
    assert await client.pages(100, run_id=run.run_id, error_reasons=reasons) == [[]]


async def test_conversations_hold_every_answer_below_what_was_asked(client: Client) -> None:
    run = await client.finished()
    for size in (1, 3, 4, 100):
        token, parts = "", []
        while True:
            page = await client.results.ListConversations(
                pb.ListConversationsRequest(filter=pb.ResultFilter(run_id=run.run_id), page_size=size, page_token=token)
            )
            parts += page.conversations
            token = page.next_page_token
            if not token:
                break
        assert [each.cell_index for part in parts for each in part.results] == list(range(16))
        assert [part.row_index for part in parts if not part.continued] == [0, 1, 2, 3]
        assert all(part.request[0].parts[0].text == f"Say word {part.row_index}" for part in parts)
        assert all(each.response and not each.request for part in parts for each in part.results)


async def test_two_models_and_two_runs_are_compared_at_what_both_were_asked(client: Client) -> None:
    client.world.script = some_fail
    run, other = await client.finished(), await client.finished(spec_message(study(rows=6)))

    async def compared(first: cpb.ComparedSide, second: cpb.ComparedSide) -> cpb.CompareResultsResponse:
        answer: cpb.CompareResultsResponse = await client.results.CompareResults(
            cpb.CompareResultsRequest(first=first, second=second)
        )
        return answer

    small = cpb.ComparedSide(run_id=run.run_id, model="mock/small")
    models = await compared(small, cpb.ComparedSide(run_id=run.run_id, model="mock/large"))
    assert (models.units_shared, models.first.cells_done, models.second.cells_done) == (4, 8, 0)
    assert [figure.name for figure in models.figures] == ["answered", "latency_us", "cost_nano_usd"]
    assert (models.figures[0].first.value, models.figures[0].second.value) == (1.0, 0.0)
    assert models.first.latency_us[0].value == 1_000

    runs = await compared(cpb.ComparedSide(run_id=run.run_id), cpb.ComparedSide(run_id=other.run_id))
    assert (runs.units_shared, runs.first.units_alone, runs.second.units_alone) == (4, 0, 2)
    assert {"length.words", "is_fine"} < {figure.name for figure in runs.figures}
    assert runs.figures[-1].comparison.first == "first"

    for wrong, field in ((small, "second"), (cpb.ComparedSide(run_id=run.run_id, model="nobody"), "second.model")):
        refused = await refusal(client.results.CompareResults(cpb.CompareResultsRequest(first=small, second=wrong)))
        assert [violation.field for violation in refused.violations] == [field]
    missing = cpb.ComparedSide(run_id="run_none")
    request = cpb.CompareResultsRequest(first=small, second=missing)
    assert (await refusal(client.results.CompareResults(request))).reason == "NOT_FOUND"


async def test_results_of_an_experiment_come_newest_run_first(client: Client) -> None:
    experiment = await client.create(spec_message(study(rows=1)))
    runs = []
    for _ in range(3):
        runs.append((await client.start(experiment.experiment_id)).run_id)
        await client.watch(runs[-1])

    expected = [(run_id, cell) for run_id in reversed(runs) for cell in range(4)]
    for size in (1, 3, 5, 100):
        pages = await client.pages(size, experiment_id=experiment.experiment_id)
        assert [(each.run_id, each.cell_index) for page in pages for each in page] == expected
    lines = (await client.export(pb.EXPORT_FORMAT_JSON_LINES, experiment_id=experiment.experiment_id)).splitlines()
    assert [(json.loads(line)["run_id"], json.loads(line)["cell_index"]) for line in lines] == expected


async def test_exports_hold_every_result(client: Client) -> None:
    client.world.script = some_fail
    run = await client.finished()
    table = list(
        csv.DictReader(io.StringIO((await client.export(pb.EXPORT_FORMAT_CSV, run_id=run.run_id)).decode(), newline=""))
    )
    array = json.loads(await client.export(pb.EXPORT_FORMAT_JSON, run_id=run.run_id))
    lines = [
        json.loads(line) for line in (await client.export(pb.EXPORT_FORMAT_JSON_LINES, run_id=run.run_id)).splitlines()
    ]

    assert array == lines
    assert [item["cell_index"] for item in array] == [int(row["cell_index"]) for row in table] == list(range(16))
    assert array[0]["response"] == '=HYPERLINK("x")'
    assert table[0]["response"] == '\'=HYPERLINK("x")'
    assert (table[4]["score.is_fine"], table[4]["parameter.temperature"]) == ("1.0", "0.0")
    assert table[2]["error_reason"] == "CONTENT_POLICY"
    one = await client.export(pb.EXPORT_FORMAT_JSON, run_id=run.run_id, statuses=[pb.CELL_STATUS_UNKNOWN])
    assert json.loads(one) == []


async def test_an_export_comes_in_bounded_pieces(client: Client) -> None:
    client.world.script = lambda call: answer("word " * 20_000)
    run = await client.finished()
    request = pb.ExportResultsRequest(filter=pb.ResultFilter(run_id=run.run_id), format=pb.EXPORT_FORMAT_JSON)
    pieces = [message async for message in client.results.ExportResults(request)]

    assert len(pieces) > 5
    assert max(len(piece.data) for piece in pieces) <= 256 * 1024
    assert [piece.results for piece in pieces] == sorted(piece.results for piece in pieces)
    assert pieces[-1].results == 16
    assert len(json.loads(b"".join(piece.data for piece in pieces))) == 16


async def test_a_run_is_summed_up_per_model_and_point(client: Client) -> None:
    client.world.script = some_fail
    run = await client.finished(spec_message(study(repeats=2)))
    summary = await client.results.SummarizeRun(pb.SummarizeRunRequest(run_id=run.run_id))

    assert [(point.model, point.parameters["temperature"].double_value) for point in summary.points] == [
        ("mock/small", 0.0),
        ("mock/small", 1.0),
        ("mock/large", 0.0),
        ("mock/large", 1.0),
    ]
    small, large = summary.points[0], summary.points[2]
    assert (small.cells_total, small.cells_done, small.cells_missing) == (8, 8, 0)
    assert (large.cells_total, large.cells_done, large.cells_missing) == (8, 0, 8)
    assert (small.success_rate.value, large.success_rate.value) == (1, 0)
    assert [estimate.quantile for estimate in small.latency_us] == [0.5, 0.95]
    assert [estimate.value for estimate in small.ttft_us] == [200, 200]
    scores = {score.name: score for score in small.scores}
    assert scores["is_fine"].estimate.value == pytest.approx(0.75)
    assert (scores["is_fine"].estimate.method, scores["is_fine"].estimate.clusters) == ("rate", 4)
    assert scores["is_fine"].direction == metrics_pb2.DIRECTION_HIGHER_IS_BETTER
    assert (small.cost.cost_nano_usd, list(large.scores), list(large.ttft_us)) == (40, [], [])
    compared = [
        score.HasField("against_best") for point in summary.points for score in point.scores if score.name == "is_fine"
    ]
    assert sorted(compared) == [False, True]


@pytest.mark.parametrize("file_format", pb.ExportFormat.values()[1:])
async def test_an_export_that_is_cut_anywhere_goes_on_to_the_same_file(
    client: Client, file_format: pb.ExportFormat.ValueType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pages and groups: the cuts fall between pages, in the middle of groups, and between two runs.
    monkeypatch.setattr(exporting, "FULL_PAGE", 3)
    monkeypatch.setattr(exporting, "CHUNK_BYTES", 600)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 5)
    client.world.script = some_fail
    experiment = await client.create(spec_message(study()))
    for _ in range(2):
        await client.watch((await client.start(experiment.experiment_id)).run_id)
    chosen = pb.ResultFilter(experiment_id=experiment.experiment_id)

    async def pieces(token: str = "") -> list[pb.ExportResultsResponse]:
        request = pb.ExportResultsRequest(filter=chosen, format=file_format, resume_token=token)
        return [piece async for piece in client.results.ExportResults(request)]

    whole = await pieces()
    data = b"".join(piece.data for piece in whole)
    cuts = [number for number, piece in enumerate(whole) if piece.resume_token]
    assert len(cuts) > 3
    assert whole[-1].results == 32
    # A run that is started in the meantime is not part of it.
    await client.watch((await client.start(experiment.experiment_id)).run_id)
    for cut in cuts:
        rest = await pieces(whole[cut].resume_token)
        assert b"".join(piece.data for piece in [*whole[: cut + 1], *rest]) == data
        assert rest[-1].results == 32

    other = pb.ExportResultsRequest(
        filter=pb.ResultFilter(run_id="run_other"), format=file_format, resume_token=whole[cuts[0]].resume_token
    )
    assert (await refusal(client.results.ExportResults(other))).reason == "INVALID_PAGE_TOKEN"


async def test_an_export_whose_results_have_changed_is_not_taken_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "FULL_PAGE", 3)
    monkeypatch.setattr(exporting, "CHUNK_BYTES", 600)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 5)
    run = await client.finished()
    chosen = pb.ResultFilter(run_id=run.run_id)
    request = pb.ExportResultsRequest(filter=chosen, format=pb.EXPORT_FORMAT_PARQUET)
    token = next(
        each.resume_token
        for each in [each async for each in client.results.ExportResults(request)]
        if each.resume_token
    )
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)  # as another version of the software would write it
    request.resume_token = token
    assert (await refusal(client.results.ExportResults(request))).reason == "WRONG_STATE"
