"""How often a plan's 90 % interval holds what the run then costs: seeded studies, planned, run and paid one by one.

    make -s bench NAME=forecast
    python -m bench.forecast [--studies 100] [--first 0]

The provider is a server on the loopback interface that speaks OpenAI's format. How long its answers are differs by
study, prompt, row and call, and is drawn anew for each call; so is how many tokens the prompts of a study have. All
services in this process, on SQLite; studies share a project, so that later ones are planned from answers to earlier
ones. The last line of output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import uvloop
from aiohttp import web

from bench.embedded_lab import lab
from bench.environment import environment
from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2, run_pb2
from llmlab.client import Client

STUDIES = 100
MODELS = ("openai/gpt-4o-mini", "openai/gpt-4.1-nano")
OUTPUT_LIMIT = 4_096
REQUESTS_PER_MINUTE = 100_000
MEAN_TOKENS = (50, 1_000)
"""Between which the typical answer of a study lies, evenly on a logarithmic scale."""
BYTES_PER_TOKEN = (2.8, 5.2)
"""Of the prompts of a study."""
_MARK = re.compile(r"study (\d+) prompt (\d+) row (\d+)\.")


def drawn(*facts: object) -> random.Random:
    """Chance that is the same for the same facts."""
    return random.Random(repr(facts))  # noqa: S311 (repeatable on purpose)


class Place(NamedTuple):
    """A filled-in prompt."""

    prompt: int
    row: int


@dataclass(frozen=True, slots=True)
class Study:
    """What a seed stands for. Spreads are standard deviations of the logarithm of an answer's length.

    `pilot` are the places that an earlier run of the same study has answers for; empty where it was never run.
    """

    seed: int
    prompts: int
    rows: int
    repeats: int
    models: tuple[str, ...]
    temperatures: tuple[float, ...]
    typical_tokens: float
    spread_prompts: float
    spread_rows: float
    spread_answers: float
    bytes_per_token: float
    words: int
    pilot: frozenset[Place]

    def output_tokens(self, place: Place, model: str, call: int) -> int:
        """How long the answer to a model's so-manieth call of a place is; skewed and limited."""
        length = math.log(self.typical_tokens)
        for spread, facts in (
            (self.spread_prompts, (place.prompt,)),
            (self.spread_rows, place),
            (self.spread_answers, (*place, model, call)),
        ):
            length += spread * drawn(self.seed, *facts).gauss(0, 1)
        return min(OUTPUT_LIMIT, max(1, round(math.exp(length))))

    def spec(self) -> experiment_pb2.ExperimentSpec:
        """The study as a client writes it."""
        filler = "word " * self.words
        axis = experiment_pb2.ParameterAxis(
            name="temperature",
            values=[value_pb2.Value(double_value=temperature) for temperature in self.temperatures],
        )
        return experiment_pb2.ExperimentSpec(
            prompts=[
                experiment_pb2.PromptTemplate(
                    name=f"p{prompt}",
                    messages=[
                        experiment_pb2.MessageTemplate(
                            role=content_pb2.ROLE_USER,
                            text=f"study {self.seed} prompt {prompt} row {{{{row}}}}. {filler}",
                        )
                    ],
                )
                for prompt in range(self.prompts)
            ],
            dataset=experiment_pb2.Dataset(
                rows=[experiment_pb2.Row(columns={"row": value_pb2.Value(int_value=row)}) for row in range(self.rows)]
            ),
            models=[experiment_pb2.ModelTarget(model=model) for model in self.models],
            grid=[axis],
            repeats=self.repeats,
            limits=experiment_pb2.RunLimits(concurrency=64, attempts_max=1, requests_per_minute=REQUESTS_PER_MINUTE),
        )


def study(seed: int) -> Study:
    """Draws a study. Of two, one was run before: in part, as a cancelled run leaves it or as failures leave it."""
    rng = drawn(seed)
    prompts, rows = rng.randint(1, 5), rng.randint(2, 20)
    places = [Place(prompt, row) for prompt in range(prompts) for row in range(rows)]
    answered = rng.randint(2, len(places))
    pilot = rng.choice((places[:answered], rng.sample(places, answered))) if seed % 2 else []
    return Study(
        seed=seed,
        prompts=prompts,
        rows=rows,
        repeats=rng.randint(1, 4),
        models=rng.choice((MODELS, MODELS[:1], MODELS[1:])),
        temperatures=rng.choice(((0.7,), (0.2, 1.0))),
        typical_tokens=math.exp(rng.uniform(*map(math.log, MEAN_TOKENS))),
        spread_prompts=rng.uniform(0, 0.8),
        spread_rows=rng.uniform(0.05, 0.6),
        spread_answers=rng.uniform(0.05, 0.6),
        bytes_per_token=rng.uniform(*BYTES_PER_TOKEN),
        words=rng.choice((3, 30, 300)),
        pilot=frozenset(pilot),
    )


class Provider:
    """Answers as the study under way says; `answered` are the places that it does not refuse (None: none of them)."""

    def __init__(self) -> None:
        self.study = study(0)
        self.answered: frozenset[Place] | None = None
        self._calls: Counter[tuple[int, Place, str]] = Counter()

    async def complete(self, request: web.Request) -> web.Response:
        """POST /v1/chat/completions."""
        body = await request.json()
        text = body["messages"][-1]["content"]
        found = _MARK.search(text)
        assert found is not None
        seed, *rest = map(int, found.groups())
        place, model = Place(*rest), body["model"]
        if self.answered is not None and place not in self.answered:
            error = {"message": "refused", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=400)
        self._calls[seed, place, model] += 1
        tokens = self.study.output_tokens(place, model, self._calls[seed, place, model])
        prompt_tokens = math.ceil(len(text.encode()) / self.study.bytes_per_token)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
        choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "usage": usage}
        if not body.get("stream"):
            return web.json_response({**whole, "choices": [choice]})
        whole["object"] = "chat.completion.chunk"
        piece = {"index": 0, "delta": {"content": "Yes."}, "finish_reason": "stop"}
        lines = [{**whole, "usage": None, "choices": [piece]}, {**whole, "choices": []}]
        data = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
        return web.Response(text=data + "data: [DONE]\n\n", content_type="text/event-stream")


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    """Serves the provider on the loopback interface; gives its base URL."""
    application = web.Application()
    application.router.add_post("/v1/chat/completions", provider.complete)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def run_to_its_end(client: Client, experiment_id: str) -> run_pb2.Run:
    """Runs an experiment; its statistics have what it cost."""
    run = await client.start_run(experiment_id)
    async for _ in client.watch_run(run.run_id):
        pass
    return await client.get_run(run.run_id)


class Outcome(NamedTuple):
    """A forecast beside what it came to, nano-USD."""

    seed: int
    basis: str
    low: int
    actual: int
    high: int

    @property
    def holds(self) -> bool:
        """Whether the actual cost lies in the interval."""
        return self.low <= self.actual <= self.high


async def one(client: Client, provider: Provider, seed: int) -> Outcome:
    """Plans and runs one study, after its pilot where it has one."""
    provider.study = chosen = study(seed)
    experiment = await client.create_experiment(f"study {seed}", chosen.spec())
    if chosen.pilot:
        provider.answered = chosen.pilot
        await run_to_its_end(client, experiment.experiment_id)
        provider.answered = None
    plan = await client.plan_experiment(experiment_id=experiment.experiment_id)
    ended = await run_to_its_end(client, experiment.experiment_id)
    if ended.statistics.cells_done != experiment.cells:
        raise SystemExit(f"study {seed} did not complete: {ended}")
    basis = max(experiment_pb2.ForecastBasis.Name(model.basis) for model in plan.models)
    interval = plan.cost_nano_usd
    return Outcome(
        seed,
        basis.removeprefix("FORECAST_BASIS_").lower(),
        interval.low,
        ended.statistics.cost.cost_nano_usd,
        interval.high,
    )


async def measure(studies: int, first: int = 0) -> list[Outcome]:
    """The studies of so many seeds from the first, one after the other in one project."""
    provider = Provider()
    async with serving(provider) as base_url:
        os.environ |= {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none"}
        async with lab() as (client, _, _):
            outcomes = []
            for seed in range(first, first + studies):
                outcomes.append(await one(client, provider, seed))
                print(outcomes[-1], file=sys.stderr)
            return outcomes


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """How many intervals hold, and how wide they are: the median of high - low, in actual costs."""
    widths = [(each.high - each.low) / each.actual for each in outcomes]
    return {
        "studies": len(outcomes),
        "held": sum(each.holds for each in outcomes),
        "above": sum(each.actual > each.high for each in outcomes),
        "below": sum(each.actual < each.low for each in outcomes),
        "width_median": round(median(widths), 2),
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    chosen = parser.parse_args()
    before = environment()
    outcomes = uvloop.run(measure(chosen.studies, chosen.first))
    by_basis = {
        basis: figures([each for each in outcomes if each.basis == basis])
        for basis in sorted({each.basis for each in outcomes})
    }
    print(json.dumps({"benchmark": "forecast", **before, **figures(outcomes), "by_basis": by_basis}))


if __name__ == "__main__":
    main()
