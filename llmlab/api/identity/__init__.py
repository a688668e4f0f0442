"""Generated from protos/llmlab/api/identity by `make proto`."""
