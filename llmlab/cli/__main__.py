"""`python -m llmlab.cli` is the `llmlab` command."""

from llmlab.cli.main import main

main()
