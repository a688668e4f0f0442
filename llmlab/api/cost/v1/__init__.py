"""Generated from protos/llmlab/api/cost/v1 by `make proto`; not edited by hand."""
