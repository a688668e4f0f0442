"""The composition root of the cost service."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from services.cost.bookkeeping import Bookkeeping
from services.cost.catalogue import Catalogue
from services.cost.reconciler import Reconciler
from services.cost.rpc.budgets import BudgetServicer
from services.cost.rpc.holds import HoldServicer
from services.cost.rpc.prices import PriceServicer
from services.cost.rpc.usage import UsageServicer
from services.cost.settings import CostSettings
from services.cost.store.books import BookKeeper
from services.cost.store.budgets import BudgetStore
from services.cost.store.overrides import OverrideStore
from services.cost.store.price_books import PriceBooks
from services.cost.store.spend import SpendStore
from services.runtime.auth import TokenVerifier
from services.runtime.channel import open_channel
from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.server import RunningServer, serve
from services.runtime.service_database import open_service_database
from services.runtime.signing_keys import fetch_signing_keys


@asynccontextmanager
async def build(settings: CostSettings, *, clock: Clock | None = None) -> AsyncIterator[RunningServer]:
    """Run the cost service until the context ends. `clock` replaces the database's clock."""
    async with AsyncExitStack() as stack:
        # Reading takes some tens of milliseconds; the process may be serving other services meanwhile.
        prices = await asyncio.to_thread(Catalogue.load)
        database = await stack.enter_async_context(open_service_database(settings, clock=clock))
        books = Bookkeeping(
            BookKeeper(database, prices),
            max_batch=settings.commit_max_requests,
            max_queue=settings.commit_max_waiting,
        )
        stack.push_async_callback(books.close)
        reconciler = Reconciler(
            books,
            policy=settings.expired_holds,
            interval_s=settings.reconcile_interval_s,
            max_batch=settings.reconcile_max_holds,
        )
        await stack.enter_async_context(_running(reconciler.run()))
        identity = await stack.enter_async_context(open_channel(settings.identity_target, settings))
        budgets = BudgetStore(
            database,
            max_per_project=settings.max_budgets_per_project,
            max_per_anchor=settings.max_budgets_per_anchor,
        )
        overrides = OverrideStore(
            database, PriceBooks(prices), max_per_project=settings.max_price_overrides_per_project
        )
        servicers = [
            HoldServicer(books),
            UsageServicer(books, SpendStore(database)),
            PriceServicer(prices, overrides, clock or SYSTEM_CLOCK),
            BudgetServicer(budgets),
        ]
        verifier = TokenVerifier.from_settings(settings, fetch_signing_keys(identity))
        checks = {"database": database.check}
        features = [f"database:{database.dialect}"]
        yield await stack.enter_async_context(
            serve(settings, servicers, verifier=verifier, checks=checks, features=features)
        )


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Keep a background task for as long as the context lasts."""
    task = asyncio.create_task(work, name="cost-reconciler")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
