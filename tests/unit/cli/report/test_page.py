"""The report is one file that loads nothing, and in which nothing that a model wrote can act."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmlab.api.common.v1 import content_pb2
from llmlab.api.metrics.v1 import brands_pb2, metrics_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.report.figures_of_run import RunFigures
from llmlab.cli.report.page import beginning, end
from llmlab.cli.report.responses import ResponseBlocks

HOSTILE = (
    "</script><script>document.title='OWNED'</script><!--<script>"
    "<img src=x onerror=\"document.title='OWNED'\"><svg onload=\"document.title='OWNED'\">"
    "<style>body{display:none}</style></title></style>javascript:alert(1)\u2028 \" ' & ]]> \x00"
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def estimate(value: float) -> statistics_pb2.Estimate:
    return statistics_pb2.Estimate(value=value, low=value - 0.1, high=value + 0.1, low_if_missing=0, high_if_missing=1)


def summary() -> run_pb2.SummarizeRunResponse:
    run = run_pb2.Run(run_id="run_1", experiment_name=HOSTILE, status=run_pb2.RUN_STATUS_COMPLETED)
    built = run_pb2.SummarizeRunResponse(run=run, has_brands=True)
    for number in range(3):
        point = built.points.add(model=f"{number}{HOSTILE}", cells_total=4, cells_done=4)
        point.parameters["stop"].string_value = HOSTILE
        point.cost.cost_nano_usd = 1_000_000 * (number + 1)
        point.scores.add(name="quality", scale=metrics_pb2.SCALE_UNIT, estimate=estimate(0.5 + number / 10))
        point.scores.add(name=HOSTILE, scale=metrics_pb2.SCALE_BINARY, estimate=estimate(0.5))
    return built


def brands() -> run_pb2.SummarizeRunBrandsResponse:
    figures = brands_pb2.BrandFigures(answers=4, mentioning=2, mention_rate=estimate(0.5))
    visible = brands_pb2.BrandVisibility(brand=HOSTILE, figures=figures)
    for model in ("a", HOSTILE):
        visible.models.add(model=model, figures=figures)
    return run_pb2.SummarizeRunBrandsResponse(brands=[visible], domains=[run_pb2.CitedDomain(domain=HOSTILE)])


def results(count: int) -> list[run_pb2.Result]:
    found = []
    for cell in range(count):
        result = run_pb2.Result(
            cell_index=cell, prompt_name=HOSTILE, row_index=cell // 4, model=HOSTILE, status=run_pb2.CELL_STATUS_DONE
        )
        result.request.add(role=content_pb2.ROLE_USER).parts.add(text=HOSTILE)
        result.response.add(text=f"answer {cell} {HOSTILE}")
        result.response.add().tool_call.name = HOSTILE
        result.timing.latency_us = 1_000 * (cell + 1)
        result.scores.add(name=HOSTILE, value=0.5)
        result.brands.add(brand=HOSTILE)
        if cell % 4 == 3:
            result.status = run_pb2.CELL_STATUS_FAILED
            result.error.message = HOSTILE
        found.append(result)
    return found


async def page(found: list[run_pb2.Result], limit: int = 1_000) -> str:
    figures = RunFigures()
    for result in found:
        figures.add(result)

    async def stream() -> AsyncIterator[run_pb2.Result]:
        for result in found:
            yield result

    head = beginning(summary(), brands(), figures, responses_max=limit, version="1")
    return head + "".join([block async for block in ResponseBlocks().blocks(stream(), limit)]) + end()


class Seen(HTMLParser):
    """What a browser's parser would find in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.title = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._in = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._in == "title" and not self.title:
            self.title = data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def data_of(seen: Seen) -> list[Any]:
    return [json.loads(text) for attributes, text in seen.scripts if attributes.get("type") == "application/json"]


async def test_hostile_output_becomes_neither_element_nor_attribute_nor_script() -> None:
    text = await page(results(12))
    seen = Seen(text)

    assert not seen.tags & {"img", "iframe", "object", "embed", "link", "base", "form"}
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "style"]
    assert {value for name, value in seen.attributes if name in ("src", "href")} == {
        f"#{section}" for section in ("ranking", "cost", "latency", "brands", "failures", "answers")
    }
    running = [body for attributes, body in seen.scripts if "type" not in attributes]
    assert len(running) == 1
    assert "OWNED" not in running[0]
    for attributes, body in seen.scripts:
        assert attributes.get("type") in (None, "application/json")
        assert attributes.get("type") is None or not re.search("[<>&\u2028]", body)
    assert seen.title.startswith("</script><script>")


async def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    text = await page(results(1))
    policies = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    seen = Seen(text)
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    (script,) = [body for attributes, body in seen.scripts if "type" not in attributes]

    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": digest(script),
        "style-src": digest(style),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # It stands before anything that it has to hold back.
    assert text.index("Content-Security-Policy") < text.index("<title>") < text.index("<script")


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def test_the_script_writes_text_and_no_markup() -> None:
    script = end()
    assert "textContent" in script
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|setAttribute|\.href", script
    )


async def test_every_answer_is_in_the_file_as_it_was_and_each_prompt_once() -> None:
    found = results(230)
    blocks = data_of(Seen(await page(found)))
    answers = [answer for block in blocks for answer in block["answers"]]
    conversations = [each for block in blocks for each in block["conversations"]]

    assert [answer["cell"] for answer in answers] == list(range(230))
    assert answers[5]["text"] == f"answer 5 {HOSTILE}\n[tool {HOSTILE}] "
    assert [answer["in"] for answer in answers] == [cell // 4 for cell in range(230)]
    assert len(conversations) == 58
    assert conversations[0]["messages"] == [{"role": "user", "text": HOSTILE}]


async def test_a_report_of_too_many_answers_says_that_it_has_not_all() -> None:
    text = await page(results(9), limit=4)
    assert "The first 4 of 9; `llmlab export run_1` writes all." in text
    assert len(data_of(Seen(text))[0]["answers"]) == 4


@pytest.mark.skipif(BROWSER is None, reason="no browser on this machine")
async def test_a_browser_shows_the_answers_as_text_and_runs_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(await page(results(12)))
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'home'}"]
    command += ["--dump-dom", file.as_uri()]
    shown = await asyncio.to_thread(
        subprocess.run, command, check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    seen = Seen(shown.stdout)

    assert "12 answers to 3 prompts" in shown.stdout
    assert "answer 11 &lt;/script&gt;" in shown.stdout
    assert not seen.tags & {"img", "iframe"}
    assert seen.title != "OWNED"
