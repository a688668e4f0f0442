"""Generated from protos/llmlab/api/metrics by `make proto`; not edited by hand."""
