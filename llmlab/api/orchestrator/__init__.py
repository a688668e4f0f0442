"""Generated from protos/llmlab/api/orchestrator by `make proto`."""
