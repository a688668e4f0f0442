"""The gateway's RPCs: protobuf to domain and back, and nothing else."""
