"""The closing table: a ranking that says what is noise."""

from __future__ import annotations

from rich.console import Console

from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.summary_tables import explanations, summary_table

UNSPECIFIED = statistics_pb2.VERDICT_UNSPECIFIED
NOISE = statistics_pb2.VERDICT_WITHIN_NOISE
WORSE = statistics_pb2.VERDICT_SECOND_HIGHER


def point(model: str, quality: float, verdict: statistics_pb2.Verdict.ValueType = UNSPECIFIED) -> run_pb2.PointSummary:
    built = run_pb2.PointSummary(model=model, cells_total=10, cells_done=10)
    score = built.scores.add(
        name="quality",
        scale=metrics_pb2.SCALE_UNIT,
        direction=metrics_pb2.DIRECTION_HIGHER_IS_BETTER,
        estimate=statistics_pb2.Estimate(value=quality, low=quality - 0.1, high=quality + 0.1),
    )
    if verdict:
        score.against_best.CopyFrom(statistics_pb2.Comparison(verdict=verdict, detectable_difference=0.125))
    return built


def shown(summary: run_pb2.SummarizeRunResponse) -> str:
    console = Console(width=120, record=True)
    with console.capture() as capture:
        console.print(summary_table(summary))
    return capture.get()


def test_best_first_and_what_is_within_noise_is_marked() -> None:
    summary = run_pb2.SummarizeRunResponse(
        points=[point("mock/c", 0.3, WORSE), point("mock/b", 0.7, NOISE), point("mock/a", 0.75)]
    )
    lines = [line.split() for line in shown(summary).splitlines()]
    assert [line[:2] for line in lines if len(line) > 1 and line[1].startswith("mock/")] == [
        ["1", "mock/a"],
        ["2~", "mock/b"],
        ["3", "mock/c"],
    ]
    told = " ".join(explanations(summary))
    assert "~ within noise of the best by quality" in told
    assert "A true difference of 0.12 would have shown" in told


def test_a_judge_has_one_column_and_its_cost_stands_below_that_of_the_answers() -> None:
    judged = point("mock/a", 0.75)
    for name, scale in (("judge", metrics_pb2.SCALE_UNIT), ("judge.passed", metrics_pb2.SCALE_BINARY)):
        judged.scores.add(name=name, scale=scale, estimate=statistics_pb2.Estimate(value=0.6125))
    judged.cost.cost_nano_usd, judged.scoring_cost.cost_nano_usd = 2_000_000_000, 3_000_000_000
    text = shown(run_pb2.SummarizeRunResponse(points=[judged]))

    assert "judge.passed" not in text
    for expected in ("quality", "scoring", "0.61", "$2.00", "$3.00"):
        assert expected in text


def test_too_few_prompts_are_said_to_be_too_few() -> None:
    close = point("mock/b", 0.7, NOISE)
    close.scores[0].against_best.ClearField("detectable_difference")
    close.scores[0].against_best.losses = 2
    summary = run_pb2.SummarizeRunResponse(points=[point("mock/a", 0.75), close])
    assert explanations(summary)[-1].endswith("So few prompts can't show a difference: ask more of them.")


def test_a_clear_winner_is_said_to_be_one() -> None:
    summary = run_pb2.SummarizeRunResponse(points=[point("mock/a", 0.9), point("mock/b", 0.4, WORSE)])
    assert "~" not in shown(summary)
    assert "beyond noise" in explanations(summary)[-1]


def test_one_model_is_not_ranked() -> None:
    assert len(explanations(run_pb2.SummarizeRunResponse(points=[point("mock/a", 0.9)]))) == 1


def test_what_is_not_compared_is_said() -> None:
    summary = run_pb2.SummarizeRunResponse(
        points=[point("mock/a", 0.9), point("mock/b", 0.4)], not_compared_reason="too many answers"
    )
    assert explanations(summary)[-1] == "Not ranked beyond doubt: too many answers."
    unknown = [point("mock/a", 0.9), point("mock/b", 0.4, statistics_pb2.VERDICT_UNKNOWN)]
    assert "too few prompts" in explanations(run_pb2.SummarizeRunResponse(points=unknown))[-1]


def test_missing_answers_bound_the_mean() -> None:
    holed = point("mock/a", 0.8)
    holed.cells_missing = 1
    holed.scores[0].estimate.low_if_missing, holed.scores[0].estimate.high_if_missing = 0.72, 0.82
    summary = run_pb2.SummarizeRunResponse(points=[holed])
    assert "(0.72-0.82)" in shown(summary)
    assert "missing" in explanations(summary)[1]
