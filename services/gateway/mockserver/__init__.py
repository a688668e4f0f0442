"""The mock provider as a process of its own, which speaks the wire formats of real providers and logs every call.

    python -m services.gateway.mockserver --port 0 --call-log calls.jsonl

It prints one JSON line, {"base_url": "http://127.0.0.1:PORT/v1"}, when it listens. The log survives a kill of whoever
calls: each call is on disk before it is answered, so that a test can compare what was called with what was recorded.
No product code reads it.
"""
