"""Benchmarks: commands whose last line of output is one JSON object."""

import os

# Read when grpc is imported. Its handlers around fork() are not needed: children become other programs at once.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
