"""Revisions of the ledger's schema."""
