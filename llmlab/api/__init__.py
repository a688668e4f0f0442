"""Generated from protos/llmlab/api by `make proto`; never edited by hand."""
