"""The closing table of a run, and what it says about which model is better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures, money
from llmlab.cli.tables import empty_table, parameters_text

QUALITY_SCORE = "quality"
NOISE_MARK = "~"


def summary_table(summary: run_pb2.SummarizeRunResponse) -> Table:
    """Builds the closing table of a run: one entry a model and parameter point, best first.

    An entry has two lines, so that it fits a narrow terminal: figures above, intervals and 95th percentiles below.
    Where answers are missing a third line has the bounds of the scores.
    """
    score_names = shown_scores(summary.points)
    judged = any(point.HasField("scoring_cost") for point in summary.points)
    ranked_by = score_names[0] if score_names else ""
    points = sorted(summary.points, key=lambda point: best_first(point, ranked_by))
    table = empty_table(
        f"{summary.run.experiment_name} · {summary.run.run_id}",
        [
            ("#", True),
            ("model\nparameters", False),
            ("cells", True),
            *((f"{name}\n95 %", True) for name in score_names),
            ("latency\np95", True),
            ("TTFT\np95", True),
            ("tokens\nin/out", True),
            ("cost\nscoring" if judged else "cost", True),
        ],
    )
    for place, point in enumerate(points, start=1):
        table.add_row(
            f"{place}{NOISE_MARK if is_within_noise(point, ranked_by) else ''}",
            escape(f"{point.model}\n{parameters_text(point.parameters)}"),
            f"{point.cells_done}/{point.cells_total}",
            *(_score(point, name) for name in score_names),
            _quantiles(point.latency_us),
            _quantiles(point.ttft_us),
            f"{point.usage.input_tokens:,}\n{point.usage.output_tokens:,}",
            "\n".join([money.cost(point.cost), *([money.cost(point.scoring_cost)] if judged else [])]),
        )
    return table


def explanations(summary: run_pb2.SummarizeRunResponse) -> list[str]:
    """Says what the table's marks mean, as far as it has them, and how large a difference the run could have shown."""
    told = ["Below each mean or median: its 95 % interval, or the 95th percentile (- where the answers are too few)."]
    if missing := sum(point.cells_missing for point in summary.points):
        total = sum(point.cells_total for point in summary.points)
        told.append(
            f"{missing:,} of {total:,} answers are missing: means are over the others. "
            "In brackets: the mean if every missing one had the worst or the best score."
        )
    score_names = shown_scores(summary.points)
    if not score_names or len(summary.points) < 2:
        return told
    name = score_names[0]
    compared = [score.against_best for point in summary.points if (score := _compared_score(point, name))]
    noise = sum(each.verdict == statistics_pb2.VERDICT_WITHIN_NOISE for each in compared)
    if summary.not_compared_reason:
        told.append(f"Not ranked beyond doubt: {summary.not_compared_reason}.")
    elif compared and not noise and all(each.verdict != statistics_pb2.VERDICT_UNKNOWN for each in compared):
        told.append(f"The first is better than every other by {name}, prompt by prompt, beyond noise.")
    elif noise:
        told.append(
            f"{NOISE_MARK} within noise of the best by {name}, compared prompt by prompt.{_detectable(compared)}"
        )
    if any(each.verdict == statistics_pb2.VERDICT_UNKNOWN for each in compared):
        told.append("Some share too few prompts with the best to be compared with it.")
    return told


def _detectable(compared: Sequence[statistics_pb2.Comparison]) -> str:
    found = [each.detectable_difference for each in compared if each.HasField("detectable_difference")]
    if found:
        return f" A true difference of {max(found):.2f} would have shown in 80 % of such runs."
    differing = any(each.wins or each.losses for each in compared)
    return " So few prompts can't show a difference: ask more of them." if differing else ""


def _quantiles(estimates: Sequence[statistics_pb2.Estimate]) -> str:
    return f"{figures.quantile(estimates, 0.5)}\n{figures.quantile(estimates, 0.95)}"


def shown_scores(points: Iterable[run_pb2.PointSummary]) -> list[str]:
    """Chooses the score columns: quality, the binary scores that a study asked for, and the means of judges."""
    names: dict[str, None] = {}
    for point in points:
        of_point = {score.name for score in point.scores}
        for score in point.scores:
            is_judge = f"{score.name}.passed" in of_point
            # A judge's mean tells more than the rate of passes, in which what is undecided is missing.
            is_check = score.scale == metrics_pb2.SCALE_BINARY and not (
                score.name.endswith(".passed") and score.name.removesuffix(".passed") in of_point
            )
            if is_judge or is_check or score.name == QUALITY_SCORE:
                names.setdefault(score.name)
    return sorted(names, key=lambda name: (name != QUALITY_SCORE, name))


def find_score(point: run_pb2.PointSummary, name: str) -> run_pb2.ScoreSummary | None:
    """Returns a point's score of that name."""
    return next((score for score in point.scores if score.name == name), None)


def _compared_score(point: run_pb2.PointSummary, name: str) -> run_pb2.ScoreSummary | None:
    score = find_score(point, name)
    return score if score is not None and score.HasField("against_best") else None


def best_first(point: run_pb2.PointSummary, name: str) -> tuple[bool, float, str]:
    """Returns what to sort points by: the best mean of a score comes first, points without it last."""
    score = find_score(point, name)
    if score is None or not score.estimate.HasField("value"):
        return (True, 0.0, point.model)
    lower = score.direction == metrics_pb2.DIRECTION_LOWER_IS_BETTER
    return (False, score.estimate.value if lower else -score.estimate.value, point.model)


def is_within_noise(point: run_pb2.PointSummary, name: str) -> bool:
    """Says whether a point's difference to the best one by a score may be chance."""
    score = _compared_score(point, name)
    return score is not None and score.against_best.verdict == statistics_pb2.VERDICT_WITHIN_NOISE


def _score(point: run_pb2.PointSummary, name: str) -> str:
    score = find_score(point, name)
    if score is None:
        return "-"
    lines = [figures.value(score.estimate), figures.interval(score.estimate)]
    bounds = figures.if_missing(score.estimate)
    return "\n".join([*lines, f"({bounds})"] if bounds else lines)
