"""Generated from protos/llmlab/api/identity/v1 by `make proto`."""
