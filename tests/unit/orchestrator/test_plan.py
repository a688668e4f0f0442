import json

from services.orchestrator.calls import CallId
from services.orchestrator.experiment import (
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
    ScorerTarget,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.plan import RunPlan, scorer_groups
from services.orchestrator.records import RunRecord, Statistics
from services.orchestrator.spec_codec import encode_spec
from services.orchestrator.spec_view import SpecView, SpecViews
from services.orchestrator.states import RunStatus

SPEC = ExperimentSpec(
    prompts=(
        PromptTemplate("ask", (MessageTemplate("system", "Be brief."), MessageTemplate("user", "What is {{topic}}?"))),
        PromptTemplate("tell", (MessageTemplate("assistant", "I am {{topic}}."),)),
    ),
    models=(ModelTarget("mock/small", {"temperature": 2, "seed": 1}, {"ttft_ms": 5}), ModelTarget("openai/gpt")),
    rows=({"topic": "rain", "answer": "water"}, {"topic": "snow", "answer": "ice"}),
    grid=(ParameterAxis("temperature", (0.0, 1.0)),),
    scorers=(ScorerTarget("length"), ScorerTarget("exact_match", reference="{{answer}}")),
)


def plan() -> RunPlan:
    run = RunRecord(
        "run_1",
        "prj_1",
        "exp_1",
        "a study",
        RunStatus.RUNNING,
        "hash",
        RunLimits(timeout_ms=700).in_force(),
        "usr_1",
        "",
        "dlg_1",
        created_us=1,
        statistics=Statistics(cells_total=16),
    )
    return RunPlan(run, encode_spec(SPEC))


def test_a_cells_call_is_rendered_with_its_row_and_point() -> None:
    call = plan().call(CallId("run_1", 5, 2), "nonce")

    assert call.call_id == "run_1/5/2"
    assert call.messages == (("system", "Be brief."), ("user", "What is snow?"))
    assert (call.plan.model, call.plan.parameters) == ("mock/small", {"temperature": 1.0, "seed": 1})
    assert (call.plan.timeout_ms, call.plan.run_id, call.plan.tags) == (700, "run_1", {"experiment": "exp_1"})
    assert call.plan.provider_options == {"ttft_ms": 5}


def test_cells_of_one_model_and_point_share_their_plan() -> None:
    of = plan()

    assert of.call(CallId("run_1", 0, 1), "a").plan is of.call(CallId("run_1", 4, 1), "b").plan
    assert of.call(CallId("run_1", 0, 1), "a").plan is not of.call(CallId("run_1", 1, 1), "b").plan


def test_only_real_providers_are_paced_by_default() -> None:
    of = plan()

    assert (of.model_index(0), of.requests_per_minute(0)) == (0, 0)
    assert (of.model_index(2), of.requests_per_minute(2)) == (1, 60)


def test_a_sample_has_what_the_user_said_and_the_references() -> None:
    of = plan()

    sample = of.sample(4, "ice", "STOP")
    told = of.sample(8, "x", "LENGTH")

    assert (sample.prompt, sample.references, sample.finish_reason) == ("What is snow?", ("ice",), "STOP")
    assert (told.prompt, told.references) == ("I am rain.", ("water",))


def test_scorers_are_grouped_by_reference_and_those_without_join_the_first() -> None:
    a, b = ScorerTarget("exact_match", reference="{{a}}"), ScorerTarget("contains", reference="{{b}}")
    plain, other = ScorerTarget("length"), ScorerTarget("token_f1", reference="{{a}}")

    groups = scorer_groups((plain, a, b, other))

    assert [(group.scorers, group.has_reference) for group in groups] == [((a, other, plain), True), ((b,), True)]
    assert [(group.scorers, group.has_reference) for group in scorer_groups((plain,))] == [((plain,), False)]
    assert [(group.scorers, group.has_reference) for group in scorer_groups(())] == [((), False)]


def test_a_spec_view_reads_any_cell() -> None:
    view = SpecView(encode_spec(SPEC))

    assert [view.model_name(cell) for cell in range(4)] == ["mock/small"] * 2 + ["openai/gpt"] * 2
    assert view.model_indices(frozenset({"openai/gpt", "nobody"})) == [1]
    assert view.messages(1, 1) == (("assistant", "I am snow."),)
    assert view.messages(1, 1) is view.messages(1, 1)


async def test_spec_views_are_kept_up_to_a_limit() -> None:
    loaded: list[str] = []

    async def load(project_id: str, spec_hash: str) -> bytes:
        loaded.append(spec_hash)
        return encode_spec(SPEC)

    views = SpecViews(load, max_kept=2)
    first = await views.get("prj", "a")
    for name in ("b", "a", "c", "a", "b"):
        await views.get("prj", name)

    assert await views.get("prj", "a") is first
    assert loaded == ["a", "b", "c", "b"]
    assert json.loads(encode_spec(first.spec)) == json.loads(encode_spec(SPEC))
