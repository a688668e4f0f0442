"""The metrics service's calls of others."""
