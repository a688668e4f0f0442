"""Generated from protos/llmlab/api/gateway by `make proto`; not edited by hand."""
