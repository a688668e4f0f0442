"""The entry point of the `llmlab` command: it loads the commands where Ctrl-C is expected."""

from __future__ import annotations

import io
import os
import signal
import sys


def main() -> None:
    """Runs the command line and ends the process."""
    _have_standard_streams()
    try:
        from llmlab.cli.commands import app
        from llmlab.cli.tracing import traced_command

        with traced_command(sys.argv[1:], os.environ):
            app()
    except OSError as error:  # no room for the output: where nobody reads it any more, the command has ended already
        # What is still to be written would fail once more, at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"error: {error.filename or 'The output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # where no command has begun yet
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _have_standard_streams() -> None:
    """A stream that the caller has closed goes nowhere, and a character that a terminal has not is no error."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free. Left free, it would be that of a file or a connection.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
