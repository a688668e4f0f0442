"""A face of the client for programs without asyncio: the same methods, blocking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from llmlab.client.channels import Tls
from llmlab.client.client import Client
from llmlab.client.endpoints import Endpoints

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncClient, P], R]:
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(method(self._client, *args, **kwargs))

    update_wrapper(call, method)
    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncIterator[R]],
) -> Callable[Concatenate[SyncClient, P], Iterator[R]]:
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(self._client, *args, **kwargs)
        try:
            while self._is_open:
                try:
                    yield self._wait(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            if self._is_open:
                self._wait(_close(items))

    update_wrapper(call, method)
    return call


async def _next(items: AsyncIterator[R]) -> R:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    # Leaving a loop early has to end the RPC behind it.
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


class SyncClient:
    """All calls to llmlab, blocking. It runs a `Client` on an event loop in a thread of its own.

    Example:
        with SyncClient(Endpoints(), api_key="llmlab_...") as client:
            print(client.complete("mock/small", "Say hello.").parts[0].text)
    """

    def __init__(
        self, endpoints: Endpoints, *, api_key: str = "", access_token: str = "", tls: Tls | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmlab-client", daemon=True)
        self._thread.start()
        self._is_open = True
        self._client = self._wait(_open(endpoints, api_key, access_token, tls))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all channels and ends the thread."""
        self._is_open = False
        self._wait(self._client.close())
        # Iterations that were left open end here, not when they happen to be collected.
        self._wait(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    create_experiment = _blocking(Client.create_experiment)
    get_experiment = _blocking(Client.get_experiment)
    list_experiments = _iterating(Client.list_experiments)
    update_experiment = _blocking(Client.update_experiment)
    delete_experiment = _blocking(Client.delete_experiment)
    plan_experiment = _blocking(Client.plan_experiment)
    start_run = _blocking(Client.start_run)
    get_run = _blocking(Client.get_run)
    list_runs = _iterating(Client.list_runs)
    cancel_run = _blocking(Client.cancel_run)
    pause_run = _blocking(Client.pause_run)
    resume_run = _blocking(Client.resume_run)
    retry_run = _blocking(Client.retry_run)
    delete_run = _blocking(Client.delete_run)
    watch_run = _iterating(Client.watch_run)
    watch_runs = _iterating(Client.watch_runs)
    get_result = _blocking(Client.get_result)
    list_results = _iterating(Client.list_results)
    list_conversations = _iterating(Client.list_conversations)
    rescore_run = _iterating(Client.rescore_run)
    list_score_sets = _blocking(Client.list_score_sets)
    compare_results = _blocking(Client.compare_results)
    summarize_run = _blocking(Client.summarize_run)
    summarize_run_brands = _blocking(Client.summarize_run_brands)
    export_results = _iterating(Client.export_results)
    complete = _blocking(Client.complete)
    stream_complete = _iterating(Client.stream_complete)
    embed = _blocking(Client.embed)
    create_chat_session = _blocking(Client.create_chat_session)
    get_chat_session = _blocking(Client.get_chat_session)
    list_chat_sessions = _iterating(Client.list_chat_sessions)
    delete_chat_session = _blocking(Client.delete_chat_session)
    list_chat_turns = _iterating(Client.list_chat_turns)
    send_chat_message = _iterating(Client.send_chat_message)
    watch_chat_turn = _iterating(Client.watch_chat_turn)
    cancel_chat_turn = _blocking(Client.cancel_chat_turn)
    run_automation = _blocking(Client.run_automation)
    stream_automation = _iterating(Client.stream_automation)
    start_automation = _blocking(Client.start_automation)
    get_automation = _blocking(Client.get_automation)
    cancel_automation = _blocking(Client.cancel_automation)
    list_models = _iterating(Client.list_models)
    list_providers = _iterating(Client.list_providers)
    score = _blocking(Client.score)
    score_batch = _blocking(Client.score_batch)
    score_run_batch = _blocking(Client.score_run_batch)
    score_stream = _iterating(Client.score_stream)
    list_scorers = _iterating(Client.list_scorers)
    summarize = _blocking(Client.summarize)
    detect_brands = _blocking(Client.detect_brands)
    summarize_brands = _blocking(Client.summarize_brands)
    create_brand_set = _blocking(Client.create_brand_set)
    get_brand_set = _blocking(Client.get_brand_set)
    list_brand_sets = _iterating(Client.list_brand_sets)
    update_brand_set = _blocking(Client.update_brand_set)
    delete_brand_set = _blocking(Client.delete_brand_set)
    create_prompt = _blocking(Client.create_prompt)
    get_prompt = _blocking(Client.get_prompt)
    list_prompts = _iterating(Client.list_prompts)
    delete_prompt = _blocking(Client.delete_prompt)
    create_dataset = _blocking(Client.create_dataset)
    get_dataset = _blocking(Client.get_dataset)
    list_datasets = _iterating(Client.list_datasets)
    delete_dataset = _blocking(Client.delete_dataset)
    compare = _blocking(Client.compare)
    rank = _blocking(Client.rank)
    judge_by_rubric = _blocking(Client.judge_by_rubric)
    judge_pairs = _blocking(Client.judge_pairs)
    record_usage = _blocking(Client.record_usage)
    stream_usage = _blocking(Client.stream_usage)
    get_usage_event = _blocking(Client.get_usage_event)
    list_usage_events = _iterating(Client.list_usage_events)
    summarize_spend = _blocking(Client.summarize_spend)
    export_spend = _iterating(Client.export_spend)
    get_model_price = _blocking(Client.get_model_price)
    list_prices = _iterating(Client.list_prices)
    estimate_cost = _blocking(Client.estimate_cost)
    price_usage = _blocking(Client.price_usage)
    create_price_override = _blocking(Client.create_price_override)
    list_price_overrides = _iterating(Client.list_price_overrides)
    delete_price_override = _blocking(Client.delete_price_override)
    preview_repricing = _blocking(Client.preview_repricing)
    apply_repricing = _blocking(Client.apply_repricing)
    reverse_repricing = _blocking(Client.reverse_repricing)
    list_repricings = _iterating(Client.list_repricings)
    create_budget = _blocking(Client.create_budget)
    get_budget = _blocking(Client.get_budget)
    list_budgets = _iterating(Client.list_budgets)
    update_budget = _blocking(Client.update_budget)
    delete_budget = _blocking(Client.delete_budget)
    list_alerts = _iterating(Client.list_alerts)
    watch_alerts = _iterating(Client.watch_alerts)
    create_webhook = _blocking(Client.create_webhook)
    get_webhook = _blocking(Client.get_webhook)
    list_webhooks = _iterating(Client.list_webhooks)
    update_webhook = _blocking(Client.update_webhook)
    delete_webhook = _blocking(Client.delete_webhook)
    test_webhook = _blocking(Client.test_webhook)
    list_deliveries = _iterating(Client.list_deliveries)
    redeliver = _blocking(Client.redeliver)
    list_anomalies = _iterating(Client.list_anomalies)
    watch_anomalies = _iterating(Client.watch_anomalies)
    get_forecast = _blocking(Client.get_forecast)
    sign_up = _blocking(Client.sign_up)
    log_in = _blocking(Client.log_in)
    refresh_token = _blocking(Client.refresh_token)
    log_out = _blocking(Client.log_out)
    who_am_i = _blocking(Client.who_am_i)
    create_api_key = _blocking(Client.create_api_key)
    list_api_keys = _iterating(Client.list_api_keys)
    revoke_api_key = _blocking(Client.revoke_api_key)
    server_info = _blocking(Client.server_info)
    health = _blocking(Client.health)


async def _open(endpoints: Endpoints, api_key: str, access_token: str, tls: Tls | None) -> Client:
    # grpc.aio binds a channel to the loop that is running when it is made.
    return Client(endpoints, api_key=api_key, access_token=access_token, tls=tls)
