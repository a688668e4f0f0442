"""Generated from protos/llmlab/api/gateway by `make proto`; never edited by hand."""
