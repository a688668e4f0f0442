"""Generated from protos/llmlab/api/common/v1 by `make proto`."""
