import math
import pickle
import random
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.metrics.declarations import NoParameters, ScoreDeclaration, Scorer, Subject, Value, unit
from services.metrics.registry import DEFAULT_SPECS, SCORERS, Plan, ScoreColumn, ScorerSpec
from services.metrics.scoring import (
    FrozenSpec,
    SampleScores,
    SampleTexts,
    freeze_spec,
    plan_of,
    score_samples,
    score_subject,
)
from services.runtime.errors import InvalidField

HELD_OUT_TEXTS = Path(__file__).parents[3] / "bench" / "texts" / "answers_held_out.yaml"
# What stands between and within words in odd texts.
ODD_PIECES = [
    *" \n\t.,!?'\"-()*#|`",
    *(" ", " ", " ", ". ", ", ", "\n\n", "\n- ", "\n1. ", " -- ", "--", "\r\n", "e.g. ", "Dr. ", "approx. ", "3.14 "),
    *("1,000 ", "the ", "this ", "a ", "First ", "Finally ", "I can't help ", "'tis ", "state-of-the-art "),
    *("\u6771", "\u4eac", "\u3002", "\u0e01", "\u0301", "\u00df", "\u0130", "\u2019", "\u2014", "\u2026", "\u05d0"),
    *("\x00", "\x02", "\x1f", "\xa0", "\u2028", "\u1e9e", "\uff11", "\u0661", "\U0001f600"),
]

REFERENCE_SPECS = tuple(
    freeze_spec(spec)
    for spec in (
        ScorerSpec("exact_match"),
        ScorerSpec("token_f1"),
        ScorerSpec("contains", {"texts": ["a", "\x00"]}),
        ScorerSpec("regex", {"pattern": r"\w+$"}),
        ScorerSpec("bleu"),
        ScorerSpec("chrf"),
        ScorerSpec("ter"),
        ScorerSpec("rouge"),
        ScorerSpec("rouge_stemmed"),
        ScorerSpec("numeric"),
        ScorerSpec("fuzzy_match", {"method": "token_set"}),
        ScorerSpec("json_schema", {"schema": '{"type": "object"}'}),
        ScorerSpec("expression", {"expression": "answer.contains('a') ? words : sentences"}),
    )
)


def test_every_scorer_meets_hostile_text() -> None:
    inside = {name for name, scorer in SCORERS.items() if not scorer.outside}
    assert {name for name, _, _ in REFERENCE_SPECS} == inside - {spec.name for spec in DEFAULT_SPECS}


def sample(answer: str, prompt: str = "", references: tuple[str, ...] = (), finish_reason: str = "") -> SampleTexts:
    return (answer, prompt, references, finish_reason)


def one(scores: SampleScores, specs: tuple[FrozenSpec, ...] = ()) -> dict[str, float | None]:
    columns = plan_of(specs).columns
    return dict(zip([column.name for column in columns], scores.values, strict=True))


TEXTS = st.text(max_size=300) | st.text(alphabet="ab .,\n-#|`1'\"\u6771", max_size=300)


@settings(max_examples=40)
@given(TEXTS, TEXTS, TEXTS)
def test_every_value_is_finite_and_within_its_bounds_or_absent_with_a_reason(
    answer: str, prompt: str, reference: str
) -> None:
    for specs in ((), REFERENCE_SPECS):
        (scores,) = score_samples(specs, [sample(answer, prompt, (reference,), "STOP")])
        assert not scores.failed
        reasons = dict(scores.absent)
        for index, (column, value) in enumerate(zip(plan_of(specs).columns, scores.values, strict=True)):
            if value is None:
                assert reasons[index]
                continue
            low, high = column.declaration.minimum, column.declaration.maximum
            assert math.isfinite(value)
            assert low is None or value >= low - 1e-9
            assert high is None or value <= high + 1e-9


@given(TEXTS, TEXTS)
def test_scores_do_not_depend_on_what_was_scored_before(answer: str, prompt: str) -> None:
    alone = score_samples((), [sample(answer, prompt)])[0]
    after = score_samples((), [sample(prompt, answer), sample(answer, prompt)])[1]
    assert alone == after


# The same numbers on every supported Python and every replica.
GOLDEN = {
    "coherence": 0.5,
    "completeness": 1.0,
    "finished": 1.0,
    "length.characters": 99.0,
    "length.words": 20.0,
    "length.sentences": 4.0,
    "length.paragraphs": 2.0,
    "lexical_diversity.distinct_1": 0.95,
    "lexical_diversity.distinct_2": 1.0,
    "lexical_diversity.mtld": None,
    "lexical_diversity.hdd": None,
    "quality": 0.965517241,
    "quality.coverage": 0.935483871,
    "readability.flesch_reading_ease": 100.24,
    "readability.flesch_kincaid_grade": 0.52,
    "readability.smog_grade": 3.1291,
    "refusal": 0.0,
    "relevance": 0.51966379,
    "repetition.rep_2": 0.0,
    "repetition.rep_3": 0.0,
    "repetition.rep_4": 0.0,
    "structure.headings": 0.0,
    "structure.list_items": 2.0,
    "structure.code_blocks": 0.0,
    "structure.table_rows": 0.0,
    "structure.well_formed": 1.0,
}


def test_known_answer_gives_known_numbers() -> None:
    answer = (
        "Na\u00efve caf\u00e9s in \u6771\u4eac don't open early. See:\n\n"
        "1. First one\n2. Second one, at 3.50 euros, isn't cheap!\n\u2026"
    )
    (scores,) = score_samples((), [sample(answer, "Which caf\u00e9s open early in \u6771\u4eac?", (), "STOP")])
    assert one(scores) == GOLDEN


# Of every score of the texts below; another one means that scores changed, and their scorers' versions have to.
SCORES_DIGEST = "e2a926be6d9fb3af0a3ccc8b99c52f8dd76fc22fbe760868d1d98da0714879ef"


def test_many_answers_give_known_numbers() -> None:
    pairs = yaml.safe_load(HELD_OUT_TEXTS.read_text(encoding="utf-8"))
    samples = [sample(pair["answer"], pair["prompt"], (), "STOP") for pair in pairs]
    source = random.Random(5)
    pieces = [*ODD_PIECES, *(word for pair in pairs for word in pair["answer"].split())]
    for pair in pairs * 3:
        odd = "".join(piece for _ in range(120) for piece in (source.choice(pieces), source.choice(ODD_PIECES)))
        samples.append(sample(odd, pair["prompt"], (), "LENGTH"))
    scores = [(scored.values, scored.absent) for scored in score_samples((), samples)]
    assert sha256(repr(scores).encode()).hexdigest() == SCORES_DIGEST


def test_a_plan_is_made_once() -> None:
    assert plan_of(REFERENCE_SPECS) is plan_of(REFERENCE_SPECS)


def test_true_and_1_are_different_parameters() -> None:
    plan_of((freeze_spec(ScorerSpec("contains", {"case_sensitive": True})),))
    with pytest.raises(InvalidField):
        plan_of((freeze_spec(ScorerSpec("contains", {"case_sensitive": 1})),))


def test_what_crosses_a_process_is_picklable() -> None:
    scores = score_samples(REFERENCE_SPECS, [sample("a")])
    assert pickle.loads(pickle.dumps(scores)) == scores


def _broken(subject: Subject, _: NoParameters) -> list[Value]:
    if subject.answer.raw == "bad":
        raise ZeroDivisionError
    return [math.nan]


def test_nan_is_absent_and_never_sent() -> None:
    declaration: ScoreDeclaration = unit("x")
    scorer = Scorer("x", "1", "x", "x", (declaration,), _broken)
    plan = Plan(((scorer, NoParameters()),), (ScoreColumn("x", declaration),))
    assert score_subject(plan, Subject("fine")) == SampleScores((None,), ((0, "the value is not a finite number"),))


def test_a_sample_that_breaks_a_scorer_fails_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = Scorer("x", "1", "x", "x", (unit("x"),), _broken)
    monkeypatch.setattr("services.metrics.registry.SCORERS", {"x": scorer})
    specs = (freeze_spec(ScorerSpec("x", {}, "only here")),)
    bad, good = score_samples(specs, [sample("bad"), sample("good")])
    assert bad == SampleScores((), (), failed=True)
    assert not good.failed
    assert "3 characters" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   ",
        "x" * 5_000_000,
        "\x00" * 100_000,
        "\n" * 100_000,
        "# " * 100_000,
        "|" * 200_000,
        "```\n" * 50_000,
        "a b " * 250_000,
    ],
    ids=["empty", "spaces", "one line", "NULs", "newlines", "headings", "bars", "fences", "two words"],
)
@pytest.mark.timeout(60)  # a quadratic step would take hours
def test_hostile_answers_are_scored(answer: str) -> None:
    for specs in ((), REFERENCE_SPECS):
        (scores,) = score_samples(specs, [sample(answer, "Explain volcanoes", ("x",), "STOP")])
        assert not scores.failed
