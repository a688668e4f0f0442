"""The tables that the command prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import OverflowMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmlab.api.common.v1 import error_pb2, value_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures, money
from llmlab.cli.plain import enum_name
from llmlab.cli.studies import from_value

ANSWER_PREVIEW_CHARACTERS = 60
# An id is there to be copied, and a state is one short word: neither is broken over lines.
UNBROKEN_HEADINGS = ("run", "state")


def empty_table(title: str, columns: Sequence[tuple[str, bool]]) -> Table:
    """Makes an empty table; columns are (heading, whether it holds numbers)."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for heading, numeric in columns:
        unbroken = numeric or heading in UNBROKEN_HEADINGS
        # What is cut shows an ellipsis: a number without its last digits would be another number.
        overflow: OverflowMethod = "ellipsis" if unbroken else "fold"
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=unbroken, overflow=overflow)
    return table


def parameters_text(parameters: Mapping[str, value_pb2.Value]) -> str:
    """Formats a parameter point: "temperature=0.2 top_p=0.9"."""
    return " ".join(f"{name}={from_value(parameters[name])}" for name in sorted(parameters)) or "-"


def runs_table(runs: Iterable[run_pb2.Run]) -> Table:
    """Builds the list of runs."""
    table = empty_table(
        "Runs",
        [
            ("run", False),
            ("study", False),
            ("state", False),
            ("cells", True),
            ("failed", True),
            ("cost", True),
        ],
    )
    for run in runs:
        statistics = run.statistics
        table.add_row(
            run.run_id,
            escape(run.experiment_name),
            run_state(run.status),
            f"{statistics.cells_done}/{statistics.cells_total}",
            str(statistics.cells_failed + statistics.cells_unknown),
            money.cost(statistics.cost),
        )
    return table


def run_state(status: run_pb2.RunStatus.ValueType) -> Text:
    """Formats a run's state."""
    name = enum_name(run_pb2.RunStatus.DESCRIPTOR, status)
    style = {"COMPLETED": "green", "FAILED": "red", "CANCELLED": "yellow"}.get(name, "cyan")
    return Text(name.lower(), style=style)


def results_table(results: Iterable[run_pb2.Result]) -> Table:
    """Builds the list of a run's results; an entry has two lines, so that it fits a narrow terminal."""
    table = empty_table(
        "Results",
        [
            ("cell", True),
            ("prompt\nstate", False),
            ("model\nparameters", False),
            ("latency\ncost", True),
            ("answer", False),
        ],
    )
    for result in results:
        state = enum_name(run_pb2.CellStatus.DESCRIPTOR, result.status).lower()
        latency = figures.milliseconds(result.timing.latency_us) if result.timing.latency_us else "-"
        table.add_row(
            str(result.cell_index),
            escape(f"{result.prompt_name} #{result.row_index}\n{state}"),
            escape(f"{result.model}\n{parameters_text(result.parameters)}"),
            f"{latency}\n{money.cost(result.cost)}",
            Text(_preview(result)),
        )
    return table


def conversation_table(conversation: run_pb2.Conversation) -> Table:
    """Builds the answers to one prompt; the title is what was asked."""
    asked = " ".join("".join(part.text for part in message.parts) for message in conversation.request)
    title = f"{conversation.prompt_name} #{conversation.row_index}{' (goes on)' if conversation.continued else ''}"
    table = empty_table(
        escape(f"{title}: {asked}"),
        [("model\nparameters", False), ("latency\ntokens", True), ("brands", False), ("answer", False)],
    )
    for result in conversation.results:
        latency = figures.milliseconds(result.timing.latency_us) if result.timing.latency_us else "-"
        table.add_row(
            escape(f"{result.model}\n{parameters_text(result.parameters)}"),
            f"{latency}\n{result.usage.input_tokens + result.usage.output_tokens:,}",
            escape(", ".join(brand.brand for brand in result.brands) or "-"),
            Text(_preview(result)),
        )
    return table


def failures(results: Iterable[run_pb2.Result]) -> dict[str, str]:
    """Returns the kinds of failures of results, each with the message of its first one."""
    found: dict[str, str] = {}
    for result in results:
        if result.HasField("error"):
            found.setdefault(_reason(result), result.error.message)
    return found


def _reason(result: run_pb2.Result) -> str:
    return enum_name(error_pb2.ErrorReason.DESCRIPTOR, result.error.reason)


def _preview(result: run_pb2.Result) -> str:
    if result.HasField("error"):
        return _reason(result)
    line = " ".join("".join(part.text for part in result.response).split())
    return line if len(line) <= ANSWER_PREVIEW_CHARACTERS else line[: ANSWER_PREVIEW_CHARACTERS - 1] + "…"
