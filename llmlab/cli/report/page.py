"""The page: its head with the policy that keeps everything inert, the sections, the answers, and its one script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from xml.etree.ElementTree import Element

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.report import sections
from llmlab.cli.report.figures_of_run import RunFigures
from llmlab.cli.report.markup import html_of, tag


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy() -> str:
    """The content security policy: nothing is loaded from anywhere, and only the page's own script and style act."""
    return (
        f"default-src 'none'; script-src {_hash(_file('page.js'))}; style-src {_hash(_file('page.css'))}; "
        "base-uri 'none'; form-action 'none'"
    )


def beginning(
    summary: run_pb2.SummarizeRunResponse,
    brands: run_pb2.SummarizeRunBrandsResponse | None,
    figures: RunFigures,
    *,
    responses_max: int,
    version: str,
    score_set: str = "",
) -> str:
    """Everything before the answers; `score_set` names the scores that the figures are of, "" the run's own."""
    drawn = [
        sections.ranking(summary),
        sections.quality_and_cost(summary),
        sections.latencies(figures.times),
        sections.brand_section(brands) if brands is not None else None,
        sections.failures(list(figures.failures.values())),
    ]
    shown = [section for section in drawn if section is not None]
    shown.append(_answers(figures.results, responses_max, summary.run.run_id))
    parts = [
        html_of(_head(summary.run.experiment_name)),
        "<body>",
        html_of(sections.header(summary, version, score_set)),
        html_of(_navigation(shown)),
        "<main>",
        *map(html_of, shown),
        "</main>",
        html_of(tag("footer", f"Made by llmlab {version}. This file needs no network and keeps nothing.")),
    ]
    return '<!doctype html>\n<html lang="en">' + "\n".join(parts) + "\n"


def end() -> str:
    """Everything behind the answers."""
    return f"<script>{_file('page.js')}</script>\n</body></html>\n"


def _head(title: str) -> Element:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{title} · llmlab report"),
        tag("style", _file("page.css")),
    )


def _navigation(shown: Sequence[Element]) -> Element:
    links = [
        tag("a", heading.text or "", href=f"#{each.get('id')}")
        for each in shown
        if (heading := each.find("h2")) is not None
    ]
    return tag("nav", links, aria_label="Sections")


def _answers(results: int, responses_max: int, run_id: str) -> Element:
    left = results - responses_max
    told = f"The first {responses_max:,} of {results:,}; `llmlab export {run_id}` writes all." if left > 0 else None
    return sections.section(
        "answers",
        "Answers",
        tag("p", told, class_="muted") if told else None,
        tag("noscript", tag("p", "The answers are in this file, but showing them takes its script: allow it to run.")),
        tag(
            "div",
            tag("input", id="search", type="search", placeholder="Search in prompts and answers", aria_label="Search"),
            tag("select", id="model", aria_label="Model"),
            tag("select", id="state", aria_label="State"),
            tag("select", id="order", aria_label="Order"),
            class_="controls",
        ),
        tag("p", id="count", class_="muted", role="status"),
        tag("div", id="list"),
        tag("button", "Show more", id="more", type="button", hidden="hidden"),
    )
