"""The blocking face has all that the client has."""

import inspect

from llmlab.client import Client, SyncClient


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_it_has_every_method_of_the_client() -> None:
    assert public(Client) - {"access_token"} <= public(SyncClient)


def test_its_methods_have_the_same_documentation_and_parameters() -> None:
    for name in public(Client) & public(SyncClient) - {"close"}:
        asynchronous, blocking = getattr(Client, name), getattr(SyncClient, name)
        assert blocking.__doc__ == asynchronous.__doc__
        assert inspect.signature(blocking) == inspect.signature(asynchronous)


def test_nothing_of_it_is_asynchronous() -> None:
    for name in public(SyncClient):
        method = getattr(SyncClient, name)
        assert not inspect.iscoroutinefunction(method)
        assert not inspect.isasyncgenfunction(method)
