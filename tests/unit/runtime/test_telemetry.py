from collections.abc import Iterator

import pytest

from services.runtime import telemetry


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    telemetry.reset()
    yield
    telemetry.enable(on=True)
    telemetry.reset()


def test_a_counter_is_one_for_its_name_and_labels() -> None:
    telemetry.counter("holds", outcome="ok", service="cost").add()
    telemetry.counter("holds", service="cost", outcome="ok").add(2)
    telemetry.counter("holds").add()

    assert telemetry.snapshot() == {"holds{outcome=ok,service=cost}": 3, "holds": 1}


def test_a_histogram_knows_how_its_values_are_distributed() -> None:
    times = telemetry.histogram("rpc_ms")
    for value in [1.0] * 98 + [100.0] * 2:
        times.record(value)
    figures = telemetry.snapshot()["rpc_ms"]

    assert (figures["count"], figures["sum"], figures["max"]) == (100, 298.0, 100.0)
    # Buckets double: a quantile is at most twice too large.
    assert 1.0 <= figures["p50"] <= 2.0
    assert figures["p99"] == 100.0
    assert telemetry.histogram("rpc_ms") is times


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert telemetry.histogram("rpc_ms").quantile(0.99) == 0.0


def test_a_value_above_the_last_bucket_is_kept() -> None:
    times = telemetry.histogram("rpc_ms")
    times.record(1e9)

    assert times.quantile(0.5) == 1e9


def test_nothing_is_kept_while_switched_off() -> None:
    telemetry.enable(on=False)
    telemetry.counter("holds").add()
    telemetry.histogram("rpc_ms").record(1)

    assert telemetry.snapshot() == {}


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_SERIES", 2)
    for number in range(5):
        telemetry.counter("runs", run=str(number)).add()
        telemetry.histogram("run_ms", run=str(number)).record(1)

    assert len(telemetry.snapshot()) == 4
