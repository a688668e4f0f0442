"""Which RPCs the client's channels may repeat."""

from llmlab.client.channels import idempotent_methods
from services.runtime.methods import api_methods


def test_every_rpc_that_may_be_repeated_is() -> None:
    paths = {f"/{service}/{method}" for service, method in idempotent_methods()}
    assert paths == {path for path, method in api_methods().items() if method.idempotent}


def test_a_paid_call_is_never_repeated() -> None:
    names = {method for service, method in idempotent_methods() if service.endswith("GatewayService")}
    assert "ListModels" in names
    assert not names & {"Complete", "StreamComplete", "CompleteBatch"}


def test_reading_is_repeated_and_what_works_once_is_not() -> None:
    names = {method for _, method in idempotent_methods()}
    assert {"GetRun", "WatchRun", "WhoAmI", "ExchangeApiKey", "SummarizeSpend"} <= names
    assert not names & {"SignUp", "LogIn", "RefreshToken", "CreateApiKey"}
