"""Plans over the wire, in a scripted world with prices."""

from __future__ import annotations

from llmlab.api.orchestrator.v1 import experiment_pb2 as epb
from services.orchestrator.rpc.specs import spec_message
from tests.support.orchestrator import study
from tests.support.orchestrator_rpc import Client, refusal


async def plan(client: Client, **request: object) -> epb.PlanExperimentResponse:
    answer: epb.PlanExperimentResponse = await client.experiments.PlanExperiment(
        epb.PlanExperimentRequest(**request)  # type: ignore[arg-type]
    )
    return answer


async def test_a_plan_becomes_narrow_with_what_has_been_measured(client: Client) -> None:
    spec, other = spec_message(study(rows=4)), spec_message(study(rows=2))
    before = await plan(client, spec=spec, limits=epb.RunLimits(concurrency=2))
    await client.finished(other)
    rough = await plan(client, spec=spec)
    run = await client.finished(spec)
    narrow = await plan(client, experiment_id=run.experiment_id)

    bases = [[model.basis for model in each.models] for each in (before, rough, narrow)]
    assert bases == [
        [epb.FORECAST_BASIS_ASSUMED] * 2,
        [epb.FORECAST_BASIS_SAME_MODEL] * 2,
        [epb.FORECAST_BASIS_SAME_STUDY] * 2,
    ]
    assert {each.cells for each in (before, rough, narrow)} == {16}
    small, large = narrow.models
    # Each answer of the scripted world has two tokens, each prompt ten bytes.
    assert (small.output_tokens.low, small.output_tokens.expected, small.output_tokens.high) == (16, 16, 16)
    assert (small.input_tokens.low, small.input_tokens.expected, small.input_tokens.high) == (16, 24, 40)
    assert (small.cost_nano_usd.expected, narrow.cost_nano_usd.expected) == (24 + 2 * 16, 24 + 2 * 16)
    assert small.measured_answers == 8
    assert not large.HasField("cost_nano_usd")
    assert any("mock/large has no price" in warning for warning in narrow.warnings)
    assert before.models[0].cost_nano_usd.high <= before.worst_case_nano_usd
    assert (before.HasField("duration_s"), narrow.duration_s) == (False, 1)
    assert (await client.pages(100, experiment_id=run.experiment_id))[0]


async def test_a_plan_names_the_run_that_a_start_would_reuse(client: Client) -> None:
    spec = spec_message(study())
    assert (await plan(client, spec=spec)).identical_run_id == ""
    run = await client.finished(spec)
    assert (await plan(client, spec=spec)).identical_run_id == run.run_id
    assert (await plan(client, experiment_id=run.experiment_id)).identical_run_id == run.run_id
    assert (await plan(client, spec=spec, limits=epb.RunLimits(concurrency=3))).identical_run_id == ""


async def test_rates_and_keys_are_thought_of_first(client: Client) -> None:
    spec = spec_message(study(rows=2_00))
    spec.models[0].model = "openai/gpt"
    answer = await plan(client, spec=spec, limits=epb.RunLimits(requests_per_minute=1))

    assert answer.duration_s == 400 * 60
    warnings = " ".join(answer.warnings)
    assert "LLMLAB_GATEWAY_OPENAI_KEY" in warnings
    assert "requests_per_minute" in warnings


async def test_what_cannot_be_run_cannot_be_planned(client: Client) -> None:
    spec = spec_message(study())
    spec.models[0].model = "nobody/x"
    for request, reason in (
        (epb.PlanExperimentRequest(), "INVALID_FIELD"),
        (epb.PlanExperimentRequest(experiment_id="exp_x"), "NOT_FOUND"),
        (epb.PlanExperimentRequest(spec=spec), "MODEL_NOT_FOUND"),
        (epb.PlanExperimentRequest(spec=spec, limits=epb.RunLimits(timeout_ms=1)), "INVALID_FIELD"),
    ):
        assert (await refusal(client.experiments.PlanExperiment(request))).reason == reason
