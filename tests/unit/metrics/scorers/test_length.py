from services.metrics.declarations import NoParameters, Subject
from services.metrics.scorers.length import LENGTH


def test_by_hand() -> None:
    assert LENGTH.function(Subject("Two words. And three more.\n\nEnd"), NoParameters()) == (31.0, 6.0, 3.0, 2.0)


def test_empty_is_zero() -> None:
    assert LENGTH.function(Subject(""), NoParameters()) == (0.0, 0.0, 0.0, 0.0)


def test_characters_are_code_points() -> None:
    assert LENGTH.function(Subject("\U0001f600e\u0301"), NoParameters())[0] == 3.0
