import pytest

from services.orchestrator.calls import NO_TIMING, Money, Timing, Usage
from services.orchestrator.estimates import Comparison, Estimate
from services.orchestrator.product import Product
from services.orchestrator.records import ResultRecord
from services.orchestrator.scores import Score
from services.orchestrator.states import CellStatus
from services.orchestrator.summary import POINTS_MAX, Summary
from services.runtime.errors import ResourceExhausted


def result(cell: int, status: CellStatus = CellStatus.DONE, *, streamed: bool = True) -> ResultRecord:
    done = status is CellStatus.DONE
    return ResultRecord(
        "run_1",
        cell,
        cell + 1,
        status,
        1,
        1,
        "STOP" if done else "",
        "",
        Usage(input_tokens=2),
        Money(7),
        Timing(100 + cell, 5, 6, streamed=streamed) if done else NO_TIMING,
        "",
        scored=done,
        created_us=1,
    )


def scores(right: float, words: float | None) -> list[Score]:
    return [
        Score("right", right, "binary", "higher"),
        Score("words", words, "count", "neutral"),
        Score("quality", right / 2, "unit", "higher"),
    ]


def test_what_judging_cost_is_summed_up_beside_what_answers_cost() -> None:
    summary = Summary(Product(prompts=1, rows=2, models=1, points=1, repeats=1))
    for cell in range(2):
        summary.add(result(cell), [Score("judge", None, "unit", "higher", cost=Money(5, 1))])

    assert (summary.points[0].cost, summary.points[0].scoring_cost) == (Money(14), Money(10, 2))


def test_every_number_goes_to_the_point_it_belongs_to() -> None:
    summary = Summary(Product(prompts=1, rows=2, models=2, points=1, repeats=2))
    for cell in (0, 1, 4):
        summary.add(result(cell), scores(float(cell == 0), None if cell == 4 else cell))
    summary.add(result(5, CellStatus.UNKNOWN), [])
    summary.add(result(2, CellStatus.FAILED), [])

    small, large = summary.points
    assert (small.cells, small.ended, small.done, small.missing) == (4, 4, 3, 1)
    assert (large.ended, large.done) == (1, 0)
    assert (small.usage.input_tokens, small.cost) == (8, Money(28))
    rate, latency, ttft, right, words, quality = list(small.series(clustered=True))
    assert (rate.kind, rate.values) == ("rate", [1, 1, 1, 0])
    assert (latency.kind, latency.values, latency.quantiles) == ("quantiles", [100, 101, 104], (0.5, 0.95))
    assert ttft.values == [6, 6, 6]
    assert (right.kind, right.values, right.clusters, right.missing) == ("rate", [1, 0, 0], [0, 0, 1], 1)
    assert (words.kind, words.values, words.missing, words.minimum) == ("mean", [0, 1], 2, None)
    assert (quality.kind, quality.minimum, quality.maximum) == ("mean", 0, 1)


def test_figures_are_read_back_in_order() -> None:
    summary = Summary(Product(prompts=1, rows=1, models=2, points=2, repeats=1))
    for cell in (0, 3):
        summary.add(result(cell, streamed=cell == 0), scores(1, 2))
    series = summary.series()
    figures = summary.figures(
        [(Estimate(str(number).encode()),) * max(1, len(each.quantiles)) for number, each in enumerate(series)],
        {"quality": [Comparison("3", b"worse")]},
    )

    assert len(series) == 4 * 3 + 2 * 3
    assert [each.success_rate.encoded for each in figures] == [b"0", b"6", b"9", b"12"]
    assert [len(each.ttft_us) for each in figures] == [2, 0, 0, 0]
    assert [(each.score.name, each.estimate.encoded) for each in figures[3].scores] == [
        ("right", b"15"),
        ("words", b"16"),
        ("quality", b"17"),
    ]
    assert all(each.clusters is None for each in series)
    assert [each.against_best for each in figures[3].scores] == [None, None, Comparison("3", b"worse")]
    assert all(each.against_best is None for point in figures[:3] for each in point.scores)


def test_points_are_compared_by_prompt_and_row_with_what_is_missing() -> None:
    summary = Summary(Product(prompts=1, rows=2, models=2, points=1, repeats=2))
    for cell in (0, 1, 2, 3, 4, 6):
        summary.add(result(cell), scores(float(cell < 2), None))
    for cell in (5, 7):
        summary.add(result(cell, CellStatus.FAILED), [])
    questions, reason = summary.questions()

    assert (list(questions), reason) == (["right", "quality"], "")
    right = questions["right"]
    assert (right.kind, right.lower_is_better, right.minimum, right.maximum) == ("rate", False, 0.0, 1.0)
    assert [(group.key, group.values, group.units, group.missing_units) for group in right.groups] == [
        ("0", [1.0, 1.0, 0.0], [0, 0, 1], [1]),
        ("1", [0.0, 0.0, 0.0], [0, 0, 1], [1]),
    ]


@pytest.mark.parametrize(("points", "answers"), [(101, 0), (2, 200_001)], ids=["points", "answers"])
def test_too_much_is_not_compared_and_says_so(points: int, answers: int) -> None:
    summary = Summary(Product(prompts=1, rows=1, models=1, points=points, repeats=1))
    summary.points[0].clusters.extend([0] * answers)
    questions, reason = summary.questions()
    assert (questions, "not compared" in reason) == ({}, True)


def test_a_summary_has_limits() -> None:
    with pytest.raises(ResourceExhausted, match="export the results") as caught:
        Summary(Product(prompts=1, rows=1, models=1, points=POINTS_MAX + 1, repeats=1))

    assert caught.value.reason == "LIMIT_REACHED"
