"""Generated from protos/llmlab/api/common by `make proto`; never edited by hand."""
