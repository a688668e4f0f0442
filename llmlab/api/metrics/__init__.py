"""Generated from protos/llmlab/api/metrics by `make proto`."""
