"""Experiments, runs and results: the ledger that makes every cell of a study happen exactly once."""
