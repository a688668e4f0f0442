"""Generated from protos/llmlab/api/cost by `make proto`; not edited by hand."""
