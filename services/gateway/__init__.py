"""The gateway service: one contract in front of every model provider."""
