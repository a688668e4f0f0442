"""What every llmlab server is made of; knows no noun of any service.

Settings: one class per service, read from LLMLAB_<SERVICE>_<FIELD>, then LLMLAB_<FIELD>.

    class CostSettings(ServiceSettings, service="cost"):
        hold_life_s: int = Field(900, ge=1, description="Seconds until a hold that nobody resolves expires.")

A servicer takes `request`, returns the answer, and raises what it refuses; it never touches gRPC's context. Who calls
comes from a context variable, and so does the project. A server stream is an async generator; cleaning up is done in
`finally`, and CancelledError is never swallowed. A stream that only watches is marked `@endless`.

    class CostServicer(budget_pb2_grpc.BudgetServiceServicer):
        async def GetBudget(self, request, context):
            budget = await self._budgets.get(current_principal().project_id, request.budget_id)   # raises NotFound
            return budget_pb2.GetBudgetResponse(budget=encode(budget))

Errors (services.runtime.errors): the class gives the gRPC code, `reason` is the name of an ErrorReason.

    raise NotFound("budget", budget_id)
    raise InvalidField("budget.limit_nano_usd", "must be above 0")
    raise ResourceExhausted("BUDGET_EXCEEDED", "budget 'team' has 0.10 USD left; raise its limit", subject="budget:b1")
    raise Unavailable("CIRCUIT_OPEN", "...", retry_after_ms=2_000)

Everything else that a handler raises becomes INTERNAL with the request id, and is logged with its stack trace.

Wiring: whoever opens a thing closes it.

    @asynccontextmanager
    async def build(settings: CostSettings) -> AsyncIterator[RunningServer]:
        async with AsyncExitStack() as stack:
            identity = await stack.enter_async_context(open_channel(settings.identity_target, settings))
            verifier = TokenVerifier.from_settings(settings, fetch_signing_keys(identity))
            database = await stack.enter_async_context(Database.open(...))
            servicer = CostServicer(...)
            checks = {"database": database.check}
            yield await stack.enter_async_context(serve(settings, [servicer], verifier=verifier, checks=checks))

Calling a peer: one channel per target for the life of the process. Every call has a deadline (the named default, and
never more than what is left of the RPC being served) and carries the request id; idempotent RPCs are retried.

    minter = ServiceTokenMinter.from_settings(settings)
    stub = budget_pb2_grpc.BudgetServiceStub(channel)
    try:
        answer = await stub.Hold(request, metadata=call_metadata(minter.token(project_id)))
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error      # the DomainError that the peer raised

On the caller's own behalf: `call_metadata(bearer_token())`.

Main: `raise SystemExit(run_service("cost", CostSettings, build))`.
"""
