"""Generated from protos/llmlab/api/gateway by `make proto`."""
