"""Commands about alerts and webhooks: alerts, webhooks."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from llmlab.api.cost.v1 import alert_pb2
from llmlab.cli.app import EXIT_FAILED, EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.options import refuse
from llmlab.cli.plain import enum_name, print_json, to_plain
from llmlab.client import Client

KINDS = {
    enum_name(alert_pb2.AlertKind.DESCRIPTOR, number).lower(): number
    for number in alert_pb2.AlertKind.values()
    if number != alert_pb2.ALERT_KIND_UNSPECIFIED
}
LIST_SHOWN = 20
LIST_SHOWN_MAX = 10_000
WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The webhook's id.")]


def alerts(
    watch: Annotated[bool, typer.Option("--watch", help="Go on with new ones as they come.")] = False,
    after: Annotated[int, typer.Option(min=0, help="With --watch: begin after the alert of this number.")] = 0,
    budget: Annotated[str, typer.Option(metavar="BUDGET", help="Only of this budget, by its id.")] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, max=LIST_SHOWN_MAX, help=f"How many to show; {LIST_SHOWN} if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show alerts on spending, newest first, or watch them; with --watch --json, one alert a line."""

    async def command() -> None:
        if watch:
            refuse("can't be used with --watch, which shows all", limit=limit)
        else:
            refuse("can only be used with --watch", after=after)
        async with connect() as client:
            if watch:
                await _watch(client, after, budget, as_json=as_json)
                return
            found = await taken(client.list_alerts(budget_id=budget), limit or LIST_SHOWN)
            if budget and not found:
                await client.get_budget(budget)  # one that does not exist is an error
        if as_json:
            print_json([to_plain(alert) for alert in found])
        elif found:
            console.print(_alerts_table(found))
        else:
            hint(
                f"No alerts{f' of budget {budget}' if budget else ''} yet: budgets raise them at their thresholds and "
                "when they refuse a call. `llmlab budgets` lists the budgets."
            )

    run_async(command())


async def _watch(client: Client, after: int, budget: str, *, as_json: bool) -> None:
    if budget:
        await client.get_budget(budget)
    of = f"budget {budget}" if budget else "the project"
    hint(f"Alerts of {of}{f' after number {after}' if after else ''}, and new ones as they come; Ctrl-C ends it.")
    async for alert in client.watch_alerts(after_sequence=after):
        if not budget or alert.budget.budget_id == budget:
            _show(alert, as_json=as_json)


def _show(alert: alert_pb2.Alert, *, as_json: bool) -> None:
    if as_json:
        print_json(to_plain(alert))
    else:
        console.print(f"{alert.sequence:>5}  {_time(alert)}  {alert.message}", highlight=False, markup=False)


def _alerts_table(found: list[alert_pb2.Alert]) -> Table:
    table = Table(title="Alerts", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("what happened", overflow="fold")
    for alert in found:
        table.add_row(str(alert.sequence), _time(alert), Text(alert.message))
    return table


def _time(alert: alert_pb2.Alert) -> str:
    return alert.create_time.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%S")


webhooks = typer.Typer(
    help="Receive alerts by HTTP: signed messages to a URL of yours.",
    no_args_is_help=True,
    epilog="Example: llmlab webhooks create https://example.com/alerts",
)


@webhooks.command("create", epilog="Example: llmlab webhooks create https://example.com/alerts --kind anomaly")
def create_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where alerts are posted, such as https://example.com/a.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help=f"Only alerts of this kind: {', '.join(KINDS)}; may be repeated."),
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(metavar="BUDGET", help="Only alerts of this budget; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook. Its secret, which proves a message's origin, is shown now and never again."""

    async def command() -> None:
        kinds = [_kind(name) for name in kind or ()]
        async with connect() as client:
            made = await client.create_webhook(url, kinds=kinds, budget_ids=budget or ())
        if as_json:
            print_json(to_plain(made))
            return
        console.print(f"Webhook {made.webhook.webhook_id}", highlight=False)
        console.print(f"Secret  {made.secret}", highlight=False, soft_wrap=True)
        hint("Keep the secret: it is not shown again.")
        hint(f"Try it with: `llmlab webhooks test {made.webhook.webhook_id}`")

    run_async(command())


def _kind(name: str) -> alert_pb2.AlertKind.ValueType:
    if name.lower() not in KINDS:
        raise CommandError(f"--kind is one of {', '.join(KINDS)}, not {name!r}.", EXIT_USAGE)
    return KINDS[name.lower()]


@webhooks.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List webhooks with the status of their deliveries."""

    async def command() -> None:
        async with connect() as client:
            found = [webhook async for webhook in client.list_webhooks()]
        if as_json:
            print_json([to_plain(webhook) for webhook in found])
        elif found:
            console.print(_webhooks_table(found))
        else:
            hint("No webhooks. Make one with: `llmlab webhooks create https://example.com/alerts`")

    run_async(command())


def _webhooks_table(found: list[alert_pb2.Webhook]) -> Table:
    table = Table(title="Webhooks", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for heading in ("webhook\nURL", "hears of", "state"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "hears of")
    for heading in ("waiting", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for webhook in found:
        status = webhook.status
        kinds = [enum_name(alert_pb2.AlertKind.DESCRIPTOR, kind).lower() for kind in webhook.kinds]
        state = "off" if webhook.disabled else status.last_error or "ok"
        table.add_row(
            Text(f"{webhook.webhook_id}\n{webhook.url}"),
            Text("\n".join([*kinds, *webhook.budget_ids]) or "everything"),
            Text(state),
            str(status.pending_deliveries),
            str(status.failed_deliveries),
        )
    return table


@webhooks.command("delete", epilog="Example: llmlab webhooks delete whk_01m7y99n267c8r0j0yrk3z9d1k")
def delete_webhook(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Delete a webhook with what it has not delivered yet."""

    async def command() -> None:
        async with connect() as client:
            await client.delete_webhook(webhook_id)
        if as_json:
            print_json({"deleted": webhook_id})
        else:
            hint(f"Webhook {webhook_id} is deleted.")

    run_async(command())


@webhooks.command("test", epilog="Example: llmlab webhooks test whk_01m7y99n267c8r0j0yrk3z9d1k")
def try_webhook(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send a signed test message to a webhook, once and now."""

    async def command() -> None:
        async with connect() as client:
            outcome = await client.test_webhook(webhook_id)
        if as_json:
            print_json(to_plain(outcome))
        elif outcome.delivered:
            console.print(f"Delivered: {outcome.http_status} after {outcome.duration_us / 1_000:.0f} ms.")
        if not outcome.delivered:
            raise CommandError(f"Not delivered: {outcome.error}.", EXIT_FAILED)

    run_async(command())


@webhooks.command("deliveries", epilog="Example: llmlab webhooks deliveries whk_01m7y99n267c8r0j0yrk3z9d1k")
def list_deliveries(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """List what was, is or was to be delivered to a webhook, newest first."""

    async def command() -> None:
        async with connect() as client:
            found = [delivery async for delivery in client.list_deliveries(webhook_id)]
        if as_json:
            print_json([to_plain(delivery) for delivery in found])
            return
        if not found:
            hint(f"No deliveries yet. `llmlab webhooks test {webhook_id}` sends a message now.")
            return
        table = Table(title="Deliveries", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for heading in ("delivery", "alert", "state", "attempts", "last error"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "delivery")
        for one in found:
            state = enum_name(alert_pb2.DeliveryState.DESCRIPTOR, one.state).lower()
            table.add_row(one.delivery_id, str(one.alert_sequence), state, str(one.attempts), Text(one.last_error))
        console.print(table)

    run_async(command())


@webhooks.command("redeliver")
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery's id.")],
    as_json: AsJson = False,
) -> None:
    """Take up a failed delivery again."""

    async def command() -> None:
        async with connect() as client:
            delivery = await client.redeliver(webhook_id, delivery_id)
        if as_json:
            print_json(to_plain(delivery))
        else:
            hint(f"Delivery {delivery_id} is taken up again.")

    run_async(command())
