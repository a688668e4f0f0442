"""Generated from protos/llmlab/api/common by `make proto`."""
