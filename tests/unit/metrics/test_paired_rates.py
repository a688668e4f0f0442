import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.paired_rates import PassTable, mcnemar_mid_p, newcombe_interval

Z95 = 1.959963984540054


def test_published_values() -> None:
    # Airway hyper-responsiveness of 21 children before and after a transplantation: M. W. Fagerland, S. Lydersen,
    # P. Laake, "Recommended tests and confidence intervals for paired binomial proportions", Statistics in Medicine 33
    # (2014): mid-p 0.039; Newcombe's square-and-add interval -0.507 to -0.026.
    assert mcnemar_mid_p(1, 7) == pytest.approx(0.0391, abs=5e-5)
    interval = newcombe_interval(PassTable(both=1, first_only=1, second_only=7, neither=12), Z95)
    assert interval.low == pytest.approx(-0.507, abs=5e-4)
    assert interval.high == pytest.approx(-0.026, abs=5e-4)


def test_nothing_discordant_is_no_evidence() -> None:
    assert mcnemar_mid_p(0, 0) == 1.0
    assert mcnemar_mid_p(3, 3) == 1.0
    assert mcnemar_mid_p(5, 0) == pytest.approx(0.5**5)


@given(*[st.integers(0, 30)] * 4)
def test_the_interval_holds_the_difference_and_mirrors(both: int, first: int, second: int, neither: int) -> None:
    table = PassTable(both, first, second, neither)
    if not sum(table):
        return
    interval = newcombe_interval(table, Z95)
    mirrored = newcombe_interval(PassTable(both, second, first, neither), Z95)
    difference = (first - second) / sum(table)
    assert interval.low is not None
    assert interval.high is not None
    assert -1.0 - 1e-9 <= interval.low <= difference + 1e-9
    assert difference - 1e-9 <= interval.high <= 1.0 + 1e-9
    assert mirrored.low == pytest.approx(-interval.high)
    assert 0.0 <= mcnemar_mid_p(first, second) <= 1.0
    assert mcnemar_mid_p(first, second) == mcnemar_mid_p(second, first)
