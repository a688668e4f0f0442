"""All commands, where `llmlab --help` lists them, and how each is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from llmlab import __version__
from llmlab.cli import (
    alert_commands,
    brand_commands,
    brand_set_commands,
    budget_commands,
    call_commands,
    chat_commands,
    compare_command,
    dataset_commands,
    estimate_command,
    insight_commands,
    judge_command,
    plan_command,
    price_commands,
    prompt_commands,
    provider_commands,
    report_command,
    repricing_commands,
    rescore_command,
    result_commands,
    run_commands,
    run_control_commands,
    scorer_commands,
    server_commands,
    spend_commands,
)

STUDIES = "Studies"
CALLS = "Calls and money"
SERVICES = "Services"

# Each command: where `llmlab --help` lists it, and an example of how it is typed.
COMMANDS = (
    (STUDIES, server_commands.demo, "llmlab demo --print > study.yaml"),
    (STUDIES, plan_command.plan, "llmlab plan study.yaml"),
    (STUDIES, run_commands.run, "llmlab run study.yaml --study 2"),
    (STUDIES, run_commands.watch, "llmlab watch latest"),
    (STUDIES, run_commands.runs, "llmlab runs --watch"),
    (STUDIES, result_commands.results, "llmlab results latest --state failed"),
    (STUDIES, result_commands.conversations, "llmlab conversations latest --limit 2"),
    (STUDIES, compare_command.compare, "llmlab compare mock/small mock/large --run latest"),
    (STUDIES, judge_command.judge, "llmlab judge mock/small mock/large --by mock/medium --pairs 8"),
    (STUDIES, brand_commands.brands, "llmlab brands latest --against run_01m7yj9h9szgf4v88nxt8k9yvb"),
    (STUDIES, result_commands.export, "llmlab export latest --format csv -o answers.csv"),
    (STUDIES, rescore_command.rescore, "llmlab rescore latest strict checks.yaml"),
    (STUDIES, report_command.report, "llmlab report latest -o report.html"),
    (STUDIES, run_control_commands.cancel, "llmlab cancel latest"),
    (STUDIES, run_control_commands.pause, "llmlab pause latest"),
    (STUDIES, run_control_commands.resume, "llmlab resume latest"),
    (STUDIES, run_control_commands.retry, "llmlab retry latest --unknown"),
    (STUDIES, run_control_commands.delete, "llmlab delete run_01m7yj9h9szgf4v88nxt8k9yvb --yes"),
    (STUDIES, scorer_commands.scorers, "llmlab scorers numeric"),
    (CALLS, call_commands.complete, "llmlab complete 'Name a colour.' --temperature 0 --json"),
    (CALLS, chat_commands.chat, "llmlab chat 'Say hello.' --model mock/small"),
    (CALLS, call_commands.models, "llmlab models --provider openai"),
    (CALLS, spend_commands.spend, "llmlab spend --by day,model --last 7d"),
    (CALLS, alert_commands.alerts, "llmlab alerts --watch"),
    (CALLS, estimate_command.estimate, "llmlab estimate openai/gpt-4o --input-tokens 2000 --output-tokens 500"),
    (CALLS, insight_commands.anomalies, "llmlab anomalies --watch"),
    (CALLS, insight_commands.forecast, "llmlab forecast --budget bud_01k9x3"),
    (SERVICES, server_commands.up, "llmlab up"),
    (SERVICES, server_commands.status, "llmlab status --json"),
    (SERVICES, provider_commands.providers, "llmlab providers"),
    (SERVICES, server_commands.token, "TOKEN=$(llmlab token)"),
)
# The same of the commands of `llmlab prices` that are about what is on record.
REPRICING_COMMANDS = (
    (repricing_commands.reprice, "llmlab prices reprice --days 7 --model openai/gpt-4o --apply"),
    (repricing_commands.repricings, "llmlab prices repricings"),
    (repricing_commands.reverse, "llmlab prices reverse rpr_01m7yj9h9szgf4v88nxt8k9yvb"),
)

app = typer.Typer(
    name="llmlab",
    epilog="Begin with: llmlab demo. Each command tells more with --help.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for panel, command, example in COMMANDS:
    app.command(rich_help_panel=panel, epilog=f"Example: {example}")(command)
for priced_again, example in REPRICING_COMMANDS:
    price_commands.prices.command(epilog=f"Example: {example}")(priced_again)
app.add_typer(prompt_commands.prompts, name="prompts", rich_help_panel=STUDIES)
app.add_typer(dataset_commands.datasets, name="datasets", rich_help_panel=STUDIES)
app.add_typer(brand_set_commands.brandsets, name="brandsets", rich_help_panel=STUDIES)
app.add_typer(
    budget_commands.app, name="budgets", rich_help_panel=CALLS, epilog="Example: llmlab budgets create --limit 10usd"
)
app.add_typer(chat_commands.chats, name="chats", rich_help_panel=CALLS, epilog="Example: llmlab chats list")
app.add_typer(alert_commands.webhooks, name="webhooks", rich_help_panel=CALLS)
app.add_typer(price_commands.prices, name="prices", rich_help_panel=CALLS)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmlab {__version__}")
        raise typer.Exit


@app.callback()
def llmlab(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Know what you get from language models: quality, speed and cost, within a budget.

    Without running services, a command starts all of them inside itself for as long as it takes; `llmlab up` keeps them
    running. Data and the first API key are in ~/.llmlab (LLMLAB_HOME names another folder).
    """
