"""Generated from protos/llmlab/api by `make proto`; not edited by hand."""
