"""Generated from protos/llmlab/api/common by `make proto`; not edited by hand."""
