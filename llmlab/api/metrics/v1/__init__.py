"""Generated from protos/llmlab/api/metrics/v1 by `make proto`."""
