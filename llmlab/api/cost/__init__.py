"""Generated from protos/llmlab/api/cost by `make proto`."""
