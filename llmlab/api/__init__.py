"""Generated from protos/llmlab/api by `make proto`."""
