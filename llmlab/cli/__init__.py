"""The `llmlab` command. It uses `llmlab.client` and nothing else to talk to the services."""
