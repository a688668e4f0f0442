from dataclasses import replace

import pytest

from services.orchestrator.experiment import (
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
    ScorerTarget,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.scores import ScorerDeclaration
from services.orchestrator.spec_codec import decode_spec, encode_spec
from services.orchestrator.validation import check_models, check_scorers, check_spec, with_needs
from services.orchestrator.values import Value, Values
from services.runtime.errors import InvalidField

GOOD = ExperimentSpec(
    prompts=(PromptTemplate("ask", (MessageTemplate("user", "What is {{topic}}?"),)),),
    rows=({"topic": "rain", "answer": "water"}, {"topic": "snow", "answer": "ice"}),
    models=(ModelTarget("mock/small"), ModelTarget("mock/large", parameters={"temperature": 0})),
    grid=(ParameterAxis("temperature", (0.0, 1.0)),),
    repeats=3,
    scorers=(ScorerTarget("length"), ScorerTarget("exact_match", reference="{{answer}}")),
)


def check(spec: ExperimentSpec, cells_max: int = 1_000_000) -> int:
    return check_spec(spec, cells_max=cells_max, cells_setting="LLMLAB_ORCHESTRATOR_MAX_CELLS_PER_RUN")


def refusal(spec: ExperimentSpec, cells_max: int = 1_000_000) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        check(spec, cells_max)
    return caught.value


def test_a_good_spec_gives_its_exact_number_of_cells() -> None:
    assert check(GOOD) == 1 * 2 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (replace(GOOD, prompts=()), "spec.prompts"),
        (replace(GOOD, models=()), "spec.models"),
        (replace(GOOD, grid=(*GOOD.grid, ParameterAxis("seed", ()))), "spec.grid[1].values"),
    ],
)
def test_an_empty_factor_is_named(spec: ExperimentSpec, field: str) -> None:
    error = refusal(spec)

    assert (error.field, error.reason) == (field, "EMPTY_PRODUCT")


def test_a_dataset_without_rows_is_one_row_without_columns() -> None:
    prompt = PromptTemplate("plain", (MessageTemplate("user", "Hello"),))

    assert check(replace(GOOD, prompts=(prompt,), rows=(), scorers=())) == 12


def test_too_many_cells_names_the_numbers_and_the_setting() -> None:
    error = refusal(GOOD, cells_max=23)

    assert error.reason == "TOO_MANY_CELLS"
    assert "24 cells" in error.message
    assert "23 cells" in error.message
    assert "LLMLAB_ORCHESTRATOR_MAX_CELLS_PER_RUN" in error.message


def test_all_missing_variables_are_found_at_once_with_their_rows() -> None:
    prompt = PromptTemplate(
        "ask", (MessageTemplate("system", "Be {{tone}}."), MessageTemplate("user", "{{a}} {{topic}} {{b}}"))
    )
    rows: tuple[Values, ...] = ({"tone": "kind", "topic": "x", "a": 1}, {"tone": "kind", "topic": "y"})

    error = refusal(replace(GOOD, prompts=(prompt,), rows=rows, scorers=()))

    assert error.field == "spec.prompts[0].messages[1].text"
    assert error.reason == "TEMPLATE_VARIABLE_MISSING"
    assert "prompt 'ask'" in error.message
    assert "{{a}} in row 1" in error.message
    assert "{{b}} in row 0 and 1 more" in error.message


def test_a_variable_without_any_dataset_is_missing() -> None:
    assert refusal(replace(GOOD, rows=())).reason == "TEMPLATE_VARIABLE_MISSING"


def test_a_malformed_template_names_its_field() -> None:
    prompt = PromptTemplate("bad", (MessageTemplate("user", "{{topic"),))

    assert refusal(replace(GOOD, prompts=(*GOOD.prompts, prompt))).field == "spec.prompts[1].messages[0].text"


def test_a_reference_template_is_checked_too() -> None:
    error = refusal(replace(GOOD, scorers=(ScorerTarget("exact_match", reference="{{solution}}"),)))

    assert error.field == "spec.scorers[0].reference"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (replace(GOOD, prompts=GOOD.prompts * 2), "spec.prompts[1].name"),
        (replace(GOOD, grid=GOOD.grid * 2), "spec.grid[1].name"),
        (
            replace(GOOD, scorers=(ScorerTarget("length"), ScorerTarget("words", label="length"))),
            "spec.scorers[1].label",
        ),
        (replace(GOOD, limits=RunLimits(timeout_ms=99)), "spec.limits.timeout_ms"),
        (replace(GOOD, models=(ModelTarget("small"),)), "spec.models[0].model"),
        (replace(GOOD, models=(ModelTarget("mock/a", {"heat": 1}),)), "spec.models[0].parameters['heat']"),
        (replace(GOOD, grid=(ParameterAxis("heat", (1,)),)), "spec.grid[0].name"),
    ],
)
def test_other_faults_name_their_field(spec: ExperimentSpec, field: str) -> None:
    assert refusal(spec).field == field


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", (0, 2, 0.5), (-0.1, 2.1, "1", True, float("nan"))),
        ("top_p", (0, 1), (1.1,)),
        ("max_output_tokens", (1, 1_000_000), (0, 1.0, None)),
        ("seed", (-5, 2**63 - 1), (2**63, "a")),
        ("stop", ("END", ("a", "b")), ("", ("a",) * 9, (1,), "x" * 1025)),
        ("frequency_penalty", (-2, 2), (-2.5,)),
        ("presence_penalty", (-2, 2), (3,)),
        ("reasoning_effort", ("low",), ("hard", 1)),
    ],
)
def test_parameters_have_types_and_ranges(name: str, good: tuple[Value, ...], bad: tuple[Value, ...]) -> None:
    check(replace(GOOD, grid=(ParameterAxis(name, good),)))
    for value in bad:
        assert (
            refusal(replace(GOOD, grid=(ParameterAxis(name, (*good, value)),))).field
            == f"spec.grid[0].values[{len(good)}]"
        )


def test_models_are_looked_up() -> None:
    check_models(GOOD, {"mock/small", "mock/large"}, {})
    check_models(replace(GOOD, models=(ModelTarget("local/anything"),)), {"local/*"}, {})
    with pytest.raises(InvalidField) as unknown:
        check_models(GOOD, {"mock/small", "openai/gpt"}, {})
    with pytest.raises(InvalidField) as keyless:
        check_models(GOOD, {"mock/small", "mock/large"}, {"mock/large": "LLMLAB_GATEWAY_MOCK_KEY"})

    assert (unknown.value.field, unknown.value.reason) == ("spec.models[1].model", "MODEL_NOT_FOUND")
    assert "mock/small" in unknown.value.message
    assert (keyless.value.field, keyless.value.reason) == ("spec.models[1].model", "PROVIDER_NOT_CONFIGURED")
    assert "LLMLAB_GATEWAY_MOCK_KEY" in keyless.value.message


DECLARED = (
    ScorerDeclaration("length", needs_reference=False, parameters=frozenset(), required_parameters=frozenset()),
    ScorerDeclaration("exact_match", needs_reference=True, parameters=frozenset(), required_parameters=frozenset()),
    ScorerDeclaration(
        "regex", needs_reference=False, parameters=frozenset({"pattern"}), required_parameters=frozenset({"pattern"})
    ),
)


def test_scorers_are_looked_up() -> None:
    check_scorers(GOOD.scorers, DECLARED)
    check_scorers((ScorerTarget("regex", {"pattern": "x"}),), DECLARED)


@pytest.mark.parametrize(
    ("target", "field", "reason"),
    [
        (ScorerTarget("nope"), "spec.scorers[0].scorer.name", "SCORER_NOT_FOUND"),
        (ScorerTarget("exact_match"), "spec.scorers[0].reference", "REFERENCE_MISSING"),
        (ScorerTarget("length", {"unit": "x"}), "spec.scorers[0].scorer.parameters['unit']", "SCORER_PARAMETERS"),
        (ScorerTarget("regex"), "spec.scorers[0].scorer.parameters", "SCORER_PARAMETERS"),
    ],
)
def test_a_wrong_scorer_names_its_field(target: ScorerTarget, field: str, reason: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_scorers((target,), DECLARED)

    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_the_model_of_a_judge_is_looked_up_like_those_that_answer() -> None:
    none: frozenset[str] = frozenset()
    declared = [
        ScorerDeclaration("judge", False, frozenset({"model", "rubric"}), none, needs_model=True),
        ScorerDeclaration("length", False, none, none),
    ]
    targets = (ScorerTarget("length"), ScorerTarget("judge", {"model": "mock/nobody", "rubric": "R"}))
    spec = with_needs(replace(GOOD, scorers=targets), declared)

    assert [target.needs_model for target in spec.scorers] == [False, True]
    with pytest.raises(InvalidField) as caught:
        check_models(spec, {"mock/small", "mock/large"}, {})
    assert caught.value.field == "spec.scorers[1].scorer.parameters['model']"
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert decode_spec(encode_spec(spec)) == spec
