import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.declarations import Absent, NoParameters, Subject, Value
from services.metrics.scorers.structure import STRUCTURE

PARTS = [declaration.part for declaration in STRUCTURE.scores]


def structure(answer: str) -> dict[str, Value]:
    return dict(zip(PARTS, STRUCTURE.function(Subject(answer), NoParameters()), strict=True))


def test_counts() -> None:
    found = structure(
        "# Title\n\nText - with a dash\n\n- one\n  * two\n1. first\n2) second\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```python\n# not a heading\n- not an item\n```\nend"
    )
    assert found == {"headings": 1, "list_items": 4, "code_blocks": 1, "table_rows": 3, "well_formed": 1.0}


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("```\ncode", 0.0),
        ("```\ncode\n```", 1.0),
        ("````\n```\n````", 1.0),
        ("~~~\n```\n~~~", 1.0),
        ("# a\n### c", 0.5),
        ("## a\n# b\n## c", 1.0),
        ("1. a\n2. b\n4. c\n", 2 / 3),
        ("1. a\n1. b\n1. c\n", 1.0),
        ("1. a\n   1. x\n   2. y\n2. b\n   1. z", 1.0),
        ("3. starts anywhere\n4. goes on", 1.0),
        ("|a|b|\n|-|-|\n|1|2|", 1.0),
        ("|a|b|\n|-|-|\n|1|", 0.0),
        ("|a|b|\n|1|2|", 0.0),
        ("|just one row|", 0.0),
        ("|a|\n|:-:|\n\n|b|\n|x|", 0.5),
    ],
)
def test_well_formed(answer: str, share: float) -> None:
    assert structure(answer)["well_formed"] == pytest.approx(share)


@pytest.mark.parametrize(
    "answer", ["", "plain prose", "- only\n- bullets", "#hashtag", "2024 was a year", "*emphasis*"]
)
def test_absent_without_constructs(answer: str) -> None:
    assert isinstance(structure(answer)["well_formed"], Absent)


@given(st.text(alphabet="#-*|`~1.2) \n\tx"))
def test_any_markdown_has_a_share_or_none(answer: str) -> None:
    share = structure(answer)["well_formed"]
    assert isinstance(share, Absent) or 0.0 <= share <= 1.0
