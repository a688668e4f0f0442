"""Which RPCs the client's channels may repeat."""

from llmlab.client.channels import idempotent_methods


def test_a_paid_call_is_never_repeated() -> None:
    names = {method for service, method in idempotent_methods() if service.endswith("GatewayService")}
    assert "ListModels" in names
    assert not names & {"Complete", "StreamComplete", "CompleteBatch"}


def test_reading_is_repeated_and_what_works_once_is_not() -> None:
    names = {method for _, method in idempotent_methods()}
    assert {"GetRun", "WatchRun", "WhoAmI", "ExchangeApiKey", "SummarizeSpend"} <= names
    assert not names & {"SignUp", "LogIn", "RefreshToken", "CreateApiKey"}
