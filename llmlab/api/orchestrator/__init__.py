"""Generated from protos/llmlab/api/orchestrator by `make proto`; never edited by hand."""
