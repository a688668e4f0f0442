"""llmlab: know what you get for your money from language models.

`llmlab.client` is the typed client, `llmlab.cli` the `llmlab` command, `llmlab.api` the generated contracts.
"""

__version__ = "0.1.0"
"""The release; the distribution's metadata takes it from here."""
