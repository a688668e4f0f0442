import pytest

from services.metrics.declarations import Direction, Scale, Scorer
from services.metrics.registry import DEFAULT_SPECS, SCORERS, ScorerSpec, make_plan
from services.runtime.errors import InvalidField


def test_scorers_are_sorted_by_name() -> None:
    assert list(SCORERS) == sorted(SCORERS)


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda scorer: scorer.name)
def test_declarations_are_complete(scorer: Scorer) -> None:
    assert scorer.version
    assert scorer.description
    assert scorer.citation
    assert len({score.part for score in scorer.scores}) == len(scorer.scores) > 0
    for score in scorer.scores:
        assert score.description
        if score.scale in {Scale.BINARY, Scale.UNIT}:
            assert (score.minimum, score.maximum) == (0.0, 1.0)
        if score.scale is Scale.COUNT:
            assert (score.minimum, score.direction) == (0.0, Direction.NEUTRAL)
    for field in scorer.parameters.model_fields.values():
        assert field.description


def test_default_set_needs_no_reference() -> None:
    names = {spec.name for spec in DEFAULT_SPECS}
    assert names == {
        "coherence",
        "completeness",
        "finished",
        "length",
        "lexical_diversity",
        "quality",
        "readability",
        "refusal",
        "relevance",
        "repetition",
        "structure",
    }
    assert not any(SCORERS[name].needs_reference for name in names)


def test_columns_carry_labels() -> None:
    specs = [ScorerSpec("exact_match"), ScorerSpec("regex", {"pattern": "a"}, "has_a"), ScorerSpec("quality", {}, "q")]
    assert [column.name for column in make_plan(specs).columns] == ["exact_match", "has_a", "q", "q.coverage"]


@pytest.mark.parametrize(
    ("specs", "field", "reason", "code"),
    [
        ([ScorerSpec("nope")], "scorers[0].name", "SCORER_NOT_FOUND", "NOT_FOUND"),
        ([ScorerSpec("length"), ScorerSpec("regex")], "scorers[1].parameters.pattern", "SCORER_PARAMETERS", None),
        ([ScorerSpec("regex", {"pattern": "("})], "scorers[0].parameters.pattern", "SCORER_PARAMETERS", None),
        ([ScorerSpec("length", {"x": 1})], "scorers[0].parameters.x", "SCORER_PARAMETERS", None),
        ([ScorerSpec("contains", {"texts": [""]})], "scorers[0].parameters.texts.0", "SCORER_PARAMETERS", None),
        (
            [ScorerSpec("contains", {"case_sensitive": 1})],
            "scorers[0].parameters.case_sensitive",
            "SCORER_PARAMETERS",
            None,
        ),
        ([ScorerSpec("length"), ScorerSpec("length")], "scorers[1].label", "INVALID_FIELD", None),
    ],
)
def test_wrong_choices_name_the_field(specs: list[ScorerSpec], field: str, reason: str, code: str | None) -> None:
    with pytest.raises(InvalidField) as caught:
        make_plan(specs)
    assert caught.value.field == field
    assert caught.value.reason == reason
    assert caught.value.code == (code or "INVALID_ARGUMENT")


def test_the_same_scorer_twice_under_labels() -> None:
    plan = make_plan([ScorerSpec("regex", {"pattern": "a"}, "a"), ScorerSpec("regex", {"pattern": "b"}, "b")])
    assert [column.name for column in plan.columns] == ["a", "b"]
