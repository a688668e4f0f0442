"""The entry point of the `llmlab` command: it loads the commands where Ctrl-C is expected."""

from __future__ import annotations

import os
import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command line and ends the process."""
    try:
        from llmlab.cli.commands import app
        from llmlab.cli.tracing import traced_command

        with traced_command(sys.argv[1:], os.environ):
            app()
    except KeyboardInterrupt:  # where no command has begun yet
        print("Interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
