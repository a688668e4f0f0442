"""Generated from protos/llmlab/api/orchestrator/v1 by `make proto`."""
