"""The report's sections but the answers: what came out, who is best, at what cost, how fast, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from xml.etree.ElementTree import Element

from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures, money
from llmlab.cli.app import NEXT_STEPS
from llmlab.cli.report.charts import (
    PlottedPoint,
    axis_labels,
    histogram,
    interval_plot,
    pareto_plot,
    share_bar,
)
from llmlab.cli.report.figures_of_run import FailureKind, ModelTimes, quantile
from llmlab.cli.report.markup import Child, tag
from llmlab.cli.report.scales import Axis
from llmlab.cli.summary_tables import NOISE_MARK, best_first, explanations, find_score, is_within_noise, shown_scores
from llmlab.cli.tables import parameters_text, run_state

MODELS_DRAWN_MAX = 40
POINTS_DRAWN_MAX = 200
BRANDS_SHOWN_MAX = 200


def ranked(summary: run_pb2.SummarizeRunResponse) -> tuple[str, list[run_pb2.PointSummary]]:
    """The score that points are ranked by ("" where there is none), and the points, best first."""
    names = shown_scores(summary.points)
    by = names[0] if names else ""
    return by, sorted(summary.points, key=lambda point: best_first(point, by))


def header(summary: run_pb2.SummarizeRunResponse, version: str, score_set: str) -> Element:
    """The study's name, its figures as a whole, and the finding in a sentence."""
    run, statistics = summary.run, summary.run.statistics
    lost, again = statistics.cells_failed + statistics.cells_unknown, statistics.attempts_failed
    began, ended = (time.ToDatetime(tzinfo=UTC) for time in (run.create_time, run.end_time))
    took = figures.duration((ended - began).total_seconds()) if run.HasField("end_time") else "-"
    facts = [
        ("answers", f"{statistics.cells_done:,}", f"of {statistics.cells_total:,} cells"),
        ("cost", money.cost(statistics.cost), "all attempts together"),
        ("tokens", f"{statistics.usage.input_tokens + statistics.usage.output_tokens:,}", _token_parts(statistics)),
        ("time", took, f"with {run.limits.concurrency} calls at once"),
        ("without an answer", f"{lost:,}", f"{again:,} calls failed and were tried again" if again else ""),
    ]
    state, scored = str(run_state(run.status)), f" · scores of {score_set}" if score_set else ""
    return tag(
        "header",
        tag("p", "llmlab report", class_="kicker"),
        tag("h1", run.experiment_name),
        tag("p", f"{run.run_id} · {state} · {began:%Y-%m-%d %H:%M} UTC{scored} · llmlab {version}", class_="muted"),
        tag("p", _finding(summary), class_="finding"),
        tag(
            "dl",
            (
                tag("div", tag("dt", name), tag("dd", value), tag("dd", more, class_="muted"))
                for name, value, more in facts
            ),
            class_="facts",
        ),
    )


def _token_parts(statistics: run_pb2.RunStatistics) -> str:
    return f"{statistics.usage.input_tokens:,} in, {statistics.usage.output_tokens:,} out"


def _finding(summary: run_pb2.SummarizeRunResponse) -> str:
    by, points = ranked(summary)
    best = find_score(points[0], by) if points else None
    if best is None or not best.estimate.HasField("value"):
        return "No score of this run ranks its models."
    alike = sum(is_within_noise(point, by) for point in points[1:])
    others = len(points) - 1
    if summary.not_compared_reason or not others:
        than = ""
    elif not alike:
        than = " No other comes as close as chance would allow."
    else:
        than = f" {'The other' if others == 1 else f'{alike} of the {others} others'} may be as good: the difference "
        than += "is within noise, compared prompt by prompt."
    return f"{_name(points[0])} has the highest mean of {by}, {_estimate_text(best.estimate)}.{than}"


def _name(point: run_pb2.PointSummary) -> str:
    parameters = parameters_text(point.parameters)
    return point.model if parameters == "-" else f"{point.model} {parameters}"


def _estimate_text(figure: statistics_pb2.Estimate) -> str:
    interval = figures.interval(figure)
    return f"{figures.value(figure)} ({interval})" if interval else figures.value(figure)


def section(name: str, title: str, *children: Child | Iterable[Child]) -> Element:
    """A section with a heading that links lead to."""
    return tag("section", tag("h2", title), *children, id=name)


def _table(headings: Sequence[tuple[str, str]], rows: Iterable[Element]) -> Element:
    """A table that scrolls by itself on a narrow screen; headings are (text, class)."""
    head = tag("tr", (tag("th", text, class_=kind or None, scope="col") for text, kind in headings))
    return tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll", tabindex="0")


def ranking(summary: run_pb2.SummarizeRunResponse) -> Element:
    """All models and parameter points, best first."""
    by, points = ranked(summary)
    names = shown_scores(summary.points)
    axes = {name: _score_axis(points, name) for name in names}
    judged = any(point.HasField("scoring_cost") for point in points)
    headings = [("#", "number"), ("model", ""), *((f"{name}, 95 % interval", "") for name in names)]
    headings += [(text, "number") for text in ("answers", "latency", "first token", "tokens", "cost")]
    rows = []
    for place, point in enumerate(points, start=1):
        latency, ttft = _quantile_texts(point.latency_us), _quantile_texts(point.ttft_us)
        scoring = f"scoring {money.cost(point.scoring_cost)}" if judged else ""
        each = money.dollars(point.cost.cost_nano_usd // point.cells_done) if point.cells_done else "-"
        cells = [
            tag("td", f"{place}{f' {NOISE_MARK}' if is_within_noise(point, by) else ''}", class_="number"),
            tag("td", tag("strong", point.model), _parameters(point), class_="name"),
            *(_score_cell(point, name, axes[name]) for name in names),
            _two_lines(f"{point.cells_done:,}", f"of {point.cells_total:,}"),
            _two_lines(*latency),
            _two_lines(*ttft),
            _two_lines(f"{point.usage.output_tokens:,} out", f"{point.usage.input_tokens:,} in"),
            _two_lines(money.cost(point.cost), scoring or f"{each} each"),
        ]
        rows.append(tag("tr", cells))
    told = [text for text in explanations(summary) if text.startswith((NOISE_MARK, "Not ranked", "Some share"))]
    return section("ranking", "Ranking", _table(headings, rows), tag("p", " ".join(told), class_="muted"))


def _two_lines(above: str, below: str) -> Element:
    return tag("td", above, tag("span", below, class_="muted"), class_="number")


def _quantile_texts(estimates: Sequence[statistics_pb2.Estimate]) -> tuple[str, str]:
    high = figures.quantile(estimates, 0.95)
    return figures.quantile(estimates, 0.5), f"p95 {high}" if high != "-" else ""


def _parameters(point: run_pb2.PointSummary) -> Element | None:
    text = parameters_text(point.parameters)
    return tag("span", text, class_="muted") if text != "-" else None


def _score_axis(points: Sequence[run_pb2.PointSummary], name: str) -> Axis:
    """From the lowest to the highest end of the intervals: next to each other they are there to be compared."""
    scores = [score for point in points if (score := find_score(point, name)) is not None]
    ends = [
        getattr(score.estimate, end)
        for score in scores
        for end in ("low", "value", "high")
        if score.estimate.HasField(end)
    ]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return Axis(low, high if high > low else low + 1.0, logarithmic=False)


def _score_cell(point: run_pb2.PointSummary, name: str, axis: Axis) -> Element:
    score = find_score(point, name)
    if score is None:
        return tag("td", "-")
    bounds = figures.if_missing(score.estimate)
    interval = tag("span", figures.interval(score.estimate), class_="muted inline")
    missing = tag("span", f"{bounds} if all that is missing were worst or best", class_="muted") if bounds else None
    value = tag("strong", figures.value(score.estimate))
    return tag("td", value, " ", interval, interval_plot(score.estimate, axis), missing, class_="score")


def quality_and_cost(summary: run_pb2.SummarizeRunResponse) -> Element | None:
    """Quality against cost; None where no point has both."""
    by, points = ranked(summary)
    plotted, left_out = [], 0
    lower_is_better = False
    for place, point in enumerate(points[:POINTS_DRAWN_MAX], start=1):
        score = find_score(point, by)
        if score is None or not score.estimate.HasField("value"):
            continue
        if point.cost.unpriced_calls or not point.cells_done:
            left_out += 1
            continue
        lower_is_better = score.direction == metrics_pb2.DIRECTION_LOWER_IS_BETTER
        each = point.cost.cost_nano_usd / point.cells_done
        figure = score.estimate
        plotted.append(
            PlottedPoint(
                label=f"{place} {point.model}",
                title=f"{_name(point)}: {_estimate_text(figure)}, {money.dollars(round(each))} an answer",
                cost=each,
                quality=figure.value,
                low=figure.low if figure.HasField("low") else None,
                high=figure.high if figure.HasField("high") else None,
            )
        )
    if not plotted:
        return None
    chart = pareto_plot(
        plotted, lower_is_better=lower_is_better, cost_text=lambda cost: money.dollars(round(cost)), quality_name=by
    )
    told = (
        "Numbers are places in the ranking; bars are 95 % intervals. Filled: nothing else is both better and cheaper."
    )
    told += f" {left_out} without a known cost are left out." if left_out else ""
    title = f"{by.capitalize()} against cost"
    axes = f"{by} ({'lower' if lower_is_better else 'higher'} is better), by cost per answer"
    return section("cost", title, tag("p", axes, class_="muted"), chart, tag("p", told, class_="muted"))


def latencies(times: dict[str, ModelTimes]) -> Element | None:
    """How long answers took, by model; None where there are none."""
    drawn = dict(list(times.items())[:MODELS_DRAWN_MAX])
    if not drawn:
        return None
    parts: list[Child] = [
        _distributions("Time to the whole answer", {name: each.latency_us for name, each in drawn.items()})
    ]
    if any(each.ttft_us for each in drawn.values()):
        parts.append(_distributions("Time to the first token", {name: each.ttft_us for name, each in drawn.items()}))
    told = "Lines: half and 95 % of the answers were at least so fast."
    told += f" The first {MODELS_DRAWN_MAX} of {len(times)} models." if len(times) > len(drawn) else ""
    return section("latency", "Latency", tag("div", parts, class_="columns"), tag("p", told, class_="muted"))


def _distributions(title: str, of_models: dict[str, Sequence[int]]) -> Element:
    ordered = {name: sorted(values) for name, values in of_models.items()}
    ends = [end for values in ordered.values() for end in (values[0], values[-1])]
    axis = Axis.around(ends)
    rows: list[Child] = []
    for name, values in ordered.items():
        marks = [quantile(values, 0.5), quantile(values, 0.95)]
        text = f"p50 {figures.milliseconds(marks[0])} · p95 {figures.milliseconds(marks[1])} · {len(values):,}"
        caption = tag("figcaption", tag("strong", name), tag("span", text, class_="muted"))
        rows.append(tag("figure", caption, histogram(values, axis, marks)))
    return tag("div", tag("h3", title), rows, axis_labels(axis, figures.milliseconds))


def brand_section(summary: run_pb2.SummarizeRunBrandsResponse) -> Element:
    """How visible brands are: over all answers, and by model."""
    brands = sorted(summary.brands, key=lambda brand: (-brand.figures.mention_rate.value, brand.brand))
    models = list(dict.fromkeys(model.model for brand in brands for model in brand.models))
    headings = [("brand", ""), ("mentioned", "number"), ("", ""), ("95 % interval", "number"), ("position", "number")]
    headings += [("share of mentions", "number"), ("cited", "number"), ("sentiment", "number")]
    headings += [(model, "number") for model in models] if len(models) > 1 else []
    rows = []
    for brand in brands[:BRANDS_SHOWN_MAX]:
        shown = brand.figures
        interval = shown.mention_rate
        texts = [
            f"{interval.low * 100:.0f}-{interval.high * 100:.0f} %" if interval.HasField("low") else "",
            figures.value(shown.average_position),
            figures.percent(shown.share_of_mentions),
            figures.percent(shown.citation_rate),
            figures.value(shown.sentiment),
        ]
        by_model = {model.model: figures.percent(model.figures.mention_rate) for model in brand.models}
        texts += [by_model.get(model, "-") for model in models] if len(models) > 1 else []
        counts = tag("span", f"{shown.mentioning:,} of {shown.answers:,} answers", class_="muted")
        rows.append(
            tag(
                "tr",
                tag("td", tag("strong", brand.brand), counts, class_="name"),
                tag("td", tag("strong", figures.percent(interval)), class_="number"),
                tag("td", share_bar(interval.value)),
                (tag("td", text, class_="number") for text in texts),
            )
        )
    domains = ", ".join(f"{each.domain} ({each.answers:,})" for each in summary.domains[:20])
    told = "Position: rank of the first mention among the brands of an answer. Models: share of their answers."
    left = len(brands) - BRANDS_SHOWN_MAX
    told += f" {left:,} less visible brands are left out." if left > 0 else ""
    cited = tag("p", f"Domains that answers cite: {domains}", class_="muted") if domains else None
    return section("brands", "Brands", _table(headings, rows), tag("p", told, class_="muted"), cited)


def failures(kinds: Sequence[FailureKind]) -> Element:
    """What did not give an answer, and why."""
    if not kinds:
        return section("failures", "Failures", tag("p", "Every cell that has ended has an answer."))
    headings = [("cells", "number"), ("state", ""), ("reason", ""), ("models", ""), ("the first one's message", "")]
    rows = []
    for kind in sorted(kinds, key=lambda each: -sum(each.cells.values())):
        models = ", ".join(f"{model} ({count:,})" for model, count in kind.cells.items())
        step = NEXT_STEPS.get(kind.reason)
        rows.append(
            tag(
                "tr",
                tag("td", f"{sum(kind.cells.values()):,}", class_="number"),
                tag("td", kind.state),
                tag("td", tag("strong", kind.reason)),
                tag("td", models),
                tag("td", kind.message, tag("span", step, class_="muted") if step else None, class_="wide"),
            )
        )
    return section("failures", "Failures", _table(headings, rows))
