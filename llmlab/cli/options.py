"""Options that several commands have, how they go together, and which option stands behind a field of a request."""

from __future__ import annotations

from typing import Annotated

import typer

from llmlab.cli.app import EXIT_USAGE, CommandError

TimeZone = Annotated[
    str, typer.Option(metavar="ZONE", help="The IANA time zone whose calendar counts, such as Europe/Berlin.")
]
User = Annotated[str, typer.Option("--user", metavar="USER", help="Only calls of this user, usr_...")]
Key = Annotated[str, typer.Option("--key", metavar="KEY", help="Only calls with this API key, key_...")]
Tag = Annotated[str, typer.Option("--tag", metavar="KEY=VALUE", help="Only calls with this tag.")]
RunScope = Annotated[str, typer.Option("--run", metavar="RUN", help="Only calls of this run, by its id or `latest`.")]
Scores = Annotated[str, typer.Option(metavar="SET", help="With the scores of this set of `llmlab rescore`.")]
Tier = Annotated[str, typer.Option("--tier", help="Service tier: batch, flex, priority; standard if left out.")]


def refuse(reason: str, **given: object) -> None:
    """Refuses options that would do nothing, instead of passing over them in silence.

    Args:
        reason: Why they would do nothing, as the end of a sentence: "can only be used with --watch".
        given: The options, by the names of their parameters, with their values; absent ones are falsy.

    Raises:
        CommandError: One of them is given.
    """
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise CommandError(f"{' and '.join(names)} {reason}.", EXIT_USAGE)
