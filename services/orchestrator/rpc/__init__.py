"""The orchestrator on the wire: protobuf to domain and back, and nothing else."""
