"""Generated from protos/llmlab/api/cost/v1 by `make proto`."""
