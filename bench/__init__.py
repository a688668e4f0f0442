"""Benchmarks: commands whose last line of output is one JSON object."""
