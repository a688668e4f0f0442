"""The metrics service on the wire: protobuf to domain and back, and nothing else."""
