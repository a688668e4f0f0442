"""The other services over gRPC: implementations of services.orchestrator.ports."""
