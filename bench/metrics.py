"""What scores and brand detection cost: answers a second, CPU of an answer over gRPC, memory of a long stream."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import yaml

from bench import metrics_brands
from bench.cpu import cpu_s, rss_mb
from bench.environment import environment
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from services.metrics.scoring import SampleTexts, score_samples

ROOT = Path(__file__).resolve().parent.parent
TEXTS = Path(__file__).parent / "texts" / "answers_held_out.yaml"
ANSWER_WORDS = 200
ANSWERS = 1_000
ROUNDS = 5
STREAMED = 10_000
SAMPLES_PER_MESSAGE = 64
WARM_UP_SAMPLES = 640


def samples() -> list[SampleTexts]:
    """Answers of 200 words to prompts, without references: several texts after one another, cut."""
    source = random.Random(1)  # noqa: S311 (texts that are always the same)
    pairs = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    made: list[SampleTexts] = []
    for number in range(ANSWERS):
        words = " ".join(pair["answer"] for pair in source.sample(pairs, 5)).split()
        start = source.randrange(len(words) - ANSWER_WORDS)
        answer = " ".join(words[start : start + ANSWER_WORDS])
        made.append((answer, pairs[number % len(pairs)]["prompt"], (), "STOP"))
    return made


def answers_per_s(texts: list[SampleTexts]) -> float:
    """Answers scored with the default set in a second of CPU, as a worker does it; the best of a few rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        score_samples((), texts)
        best = min(best, time.process_time() - started)
    return round(len(texts) / best, 1)


@contextmanager
def metrics_server() -> Iterator[tuple[str, psutil.Process]]:
    """A metrics service with one worker process, without authentication, and its address."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    environ |= {"LLMLAB_METRICS_PORT": "0", "LLMLAB_AUTH_REQUIRED": "false", "LLMLAB_HOST": "127.0.0.1"}
    command = [sys.executable, "-m", "services.metrics"]
    with subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE) as process:  # noqa: S603 (our own)
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode().split()
            if not line:
                raise SystemExit("the metrics service did not start")
            yield line[-1].rpartition("//")[2], psutil.Process(process.pid)
        finally:
            process.terminate()


async def messages(texts: list[SampleTexts], count: int) -> AsyncIterator[pb.ScoreStreamRequest]:
    """So many samples, a message's worth at a time; none is kept."""
    message = pb.ScoreStreamRequest()
    for number in range(count):
        answer, prompt, _, finish_reason = texts[number % len(texts)]
        message.samples.add(sample_id=str(number), answer=answer, prompt=prompt, finish_reason=finish_reason)
        if len(message.samples) == SAMPLES_PER_MESSAGE or number == count - 1:
            yield message
            message = pb.ScoreStreamRequest()


async def stream(address: str, server: psutil.Process, texts: list[SampleTexts]) -> dict[str, float]:
    """Scores many answers through one stream: CPU of the service and its worker, and their memory."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = MetricsServiceStub(channel)
        async for _ in stub.ScoreStream(messages(texts, WARM_UP_SAMPLES)):
            pass
        before_mb = peak_mb = rss_mb([server])
        cpu, started, scored = cpu_s(server), time.monotonic(), 0
        async for answer in stub.ScoreStream(messages(texts, STREAMED)):
            scored += len(answer.samples)
            peak_mb = max(peak_mb, rss_mb([server]))
        return {
            "rpc_cpu_us_per_answer": round((cpu_s(server) - cpu) / scored * 1e6, 1),
            "rpc_answers_per_s": round(scored / (time.monotonic() - started), 1),
            "rpc_answers": scored,
            "peak_rss_mb": peak_mb,
            "stream_growth_mb": round(peak_mb - before_mb, 1),
        }


def main() -> int:
    """Prints one JSON object."""
    texts = samples()
    figures: dict[str, Any] = {"answers_per_s_per_core": answers_per_s(texts)}
    print(f"answers a second of CPU: {figures['answers_per_s_per_core']}", file=sys.stderr)
    with metrics_server() as (address, server):
        figures |= asyncio.run(stream(address, server, texts))
    figures |= metrics_brands.figures()
    print(json.dumps({"bench": "metrics", **environment(), **figures}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
