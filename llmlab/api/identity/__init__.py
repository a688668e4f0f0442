"""Generated from protos/llmlab/api/identity by `make proto`; never edited by hand."""
