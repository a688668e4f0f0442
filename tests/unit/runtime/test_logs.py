import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from services.runtime.logs import configure_logging, redact
from services.runtime.settings import ServiceSettings
from tests.support.echo import EchoServicer, request, running_echo

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back as it was: pytest has handlers of its own there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("llmlab", "services")}
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def logged(level: str = "INFO", log_format: str = "json") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(ServiceSettings(log_level=level, log_format=log_format), stream)
    return stream


@pytest.mark.parametrize(
    "text",
    [
        "authorization: Bearer hush-hush-hush",
        f"token was {JWT}",
        "key llmlab_hushhushhushhushhush",
        "key sk-hushhushhushhushhush",
        "postgresql://me:hush@db/llmlab",
        "password=hush",
        '{"api_key": "hush"}',
        "LLMLAB_AUTH_SECRET=hush",
        "refresh_token: hush",
    ],
)
def test_credentials_are_redacted(text: str) -> None:
    assert "hush" not in redact(text)
    assert "eyJzdWIi" not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize("text", ["input_tokens=12 took 3 ms", "run_01 done", "https://host/path", "a skill"])
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_a_json_record_is_one_object(root_logger: logging.Logger) -> None:
    stream = logged()
    fields = {"ms": 3, "why": f"Bearer {JWT}"}
    error = ValueError("password=hush")
    logging.getLogger("services.cost").error("two\nlines", extra={"fields": fields}, exc_info=error)

    entry: dict[str, Any] = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert (entry["level"], entry["service"], entry["logger"]) == ("ERROR", "runtime", "services.cost")
    assert (entry["message"], entry["ms"], entry["why"]) == ("two\nlines", 3, "Bearer [redacted]")
    assert "ValueError" in entry["exception"]
    assert "hush" not in entry["exception"]
    assert "request_id" not in entry


@pytest.mark.parametrize(
    ("log_format", "ending"), [("json", '"message": "said", "request_id": "req-7"}\n'), ("text", ": said [req-7]\n")]
)
async def test_a_record_of_an_rpc_bears_its_request_id(
    root_logger: logging.Logger, log_format: str, ending: str
) -> None:
    async def answer(_: Any) -> str:
        logging.getLogger("services").info("said")
        return ""

    async with running_echo(EchoServicer(answer=answer)) as echo:
        stream = logged(log_format=log_format)
        await echo.stub.Echo(request(), metadata=(*echo.metadata(), ("x-request-id", "req-7")))
        assert stream.getvalue().endswith(ending)


def test_a_text_record_cannot_pretend_to_be_two(root_logger: logging.Logger) -> None:
    stream = logged(log_format="text")
    logging.getLogger("llmlab.rpc").info("one\nERROR two", extra={"fields": {"ms": 3}})

    assert stream.getvalue().count("\n") == 1
    assert "INFO llmlab.rpc: one\\nERROR two ms=3" in stream.getvalue()


def test_a_text_record_brings_its_stack_trace(root_logger: logging.Logger) -> None:
    stream = logged(log_format="text")
    logging.getLogger("services").error("failed", exc_info=ValueError("why"))

    assert stream.getvalue().endswith("ValueError: why\n")


def test_levels_hold_for_us_and_other_libraries_report_warnings(root_logger: logging.Logger) -> None:
    stream = logged("DEBUG")
    logging.getLogger("services.cost").debug("ours")
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("trouble")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours", "trouble"]


def test_a_message_is_bounded(root_logger: logging.Logger) -> None:
    stream = logged()
    logging.getLogger("services").info("x" * 100_000)

    assert len(stream.getvalue()) < 10_000
