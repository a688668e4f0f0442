"""`python -m services.gateway.mockserver`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from pathlib import Path

import uvloop

from services.gateway.mockserver.server import serve_mock
from services.gateway.providers.mock_script import MOCK_MODELS

_OVERRIDES = ("ttft_ms", "tokens_per_second", "error_rate", "truncation_rate")


async def _run(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    overrides = {name: value for name in _OVERRIDES if (value := getattr(arguments, name)) is not None}
    async with serve_mock(
        host=arguments.host,
        port=arguments.port,
        call_log=arguments.call_log,
        overrides=overrides,
        any_model=arguments.any_model,
        calls_at_once=arguments.calls_at_once,
    ) as base_url:
        print(json.dumps({"base_url": base_url}), flush=True)  # noqa: T201 (whoever started it learns the port here)
        await stopping.wait()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m services.gateway.mockserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes any free one")
    parser.add_argument("--call-log", type=Path, default=None, help="file that gets a JSON line per call")
    parser.add_argument(
        "--any-model", default="", choices=["", *MOCK_MODELS], help="model that answers under any other name too"
    )
    parser.add_argument(
        "--calls-at-once", type=int, default=0, help="calls under way; more are answered with status 429; 0: no limit"
    )
    for name in _OVERRIDES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=None, help=f"{name} of all models")
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
