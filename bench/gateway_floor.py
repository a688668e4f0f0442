"""The least that a gateway in Python can cost: a bare grpc.aio handler around one raw aiohttp call.

    python -m bench.gateway_floor UPSTREAM_PORT        prints its port

No authentication, limit, cache, hold or check: bytes in, one POST with orjson, bytes out. It answers the same RPCs as
the gateway, unary and streamed (one message per piece that arrives), so that the same load can be put on both.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import orjson
import uvloop

from llmlab.api.gateway.v1 import gateway_pb2


class Floor:
    """Complete and StreamComplete with nothing around them."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def complete(self, request: gateway_pb2.CompleteRequest, context: Any) -> gateway_pb2.CompleteResponse:
        """One POST, its events parsed."""
        async with self._session.post(self._url, data=_body(request.call)) as answer:
            for line in (await answer.read()).split(b"\n\n"):
                if line.startswith(b"data: {"):
                    orjson.loads(line[6:])
        return gateway_pb2.CompleteResponse()

    async def stream_complete(
        self, request: gateway_pb2.StreamCompleteRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.StreamCompleteResponse]:
        """One POST, a message per piece that arrives."""
        async with self._session.post(self._url, data=_body(request.call)) as answer:
            async for piece in answer.content.iter_any():
                events = [orjson.loads(line[6:]) for line in piece.split(b"\n\n") if line.startswith(b"data: {")]
                texts = [event["choices"][0]["delta"].get("content", "") for event in events if event["choices"]]
                yield gateway_pb2.StreamCompleteResponse(
                    chunks=[gateway_pb2.Chunk(text=text) for text in texts if text]
                )


def handlers_of(floor: Floor) -> grpc.GenericRpcHandler:
    """The two RPCs under the gateway's names."""
    name = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name
    return grpc.method_handlers_generic_handler(
        name,
        {
            "Complete": grpc.unary_unary_rpc_method_handler(
                floor.complete,
                request_deserializer=gateway_pb2.CompleteRequest.FromString,
                response_serializer=gateway_pb2.CompleteResponse.SerializeToString,
            ),
            "StreamComplete": grpc.unary_stream_rpc_method_handler(
                floor.stream_complete,
                request_deserializer=gateway_pb2.StreamCompleteRequest.FromString,
                response_serializer=gateway_pb2.StreamCompleteResponse.SerializeToString,
            ),
        },
    )


def _body(call: gateway_pb2.Call) -> bytes:
    options = call.parameters.provider_options
    return orjson.dumps(
        {
            "messages": [{"role": "user", "content": message.parts[0].text} for message in call.messages],
            "max_tokens": call.parameters.max_output_tokens,
            "interval_ms": options["interval_ms"].int_value if "interval_ms" in options else 0,
        }
    )


async def main() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=512)) as session:
        floor = Floor(session, f"http://127.0.0.1:{sys.argv[1]}/v1/chat/completions")
        server.add_generic_rpc_handlers((handlers_of(floor),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
