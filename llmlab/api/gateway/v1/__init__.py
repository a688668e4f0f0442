"""Generated from protos/llmlab/api/gateway/v1 by `make proto`."""
