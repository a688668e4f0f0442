"""Forecasts on the wire."""

from __future__ import annotations

from typing import Final

from llmlab.api.orchestrator.v1 import experiment_pb2 as pb
from services.orchestrator.planning import Amounts, Basis, Forecast, ModelForecast

_BASES: Final = {
    Basis.SAME_STUDY: pb.FORECAST_BASIS_SAME_STUDY,
    Basis.SAME_MODEL: pb.FORECAST_BASIS_SAME_MODEL,
    Basis.ASSUMED: pb.FORECAST_BASIS_ASSUMED,
}


def plan_message(forecast: Forecast) -> pb.PlanExperimentResponse:
    """A forecast on the wire."""
    return pb.PlanExperimentResponse(
        cells=forecast.cells,
        models=map(_model, forecast.models),
        cost_nano_usd=_amount(forecast.cost),
        worst_case_nano_usd=forecast.worst_case_nano_usd,
        duration_s=forecast.duration_s,
        warnings=forecast.warnings,
    )


def _model(forecast: ModelForecast) -> pb.ModelForecast:
    return pb.ModelForecast(
        model=forecast.model,
        cells=forecast.cells,
        input_tokens=_amount(forecast.input_tokens),
        output_tokens=_amount(forecast.output_tokens),
        cost_nano_usd=_amount(forecast.cost) if forecast.cost is not None else None,
        worst_case_nano_usd=forecast.worst_case_nano_usd,
        basis=_BASES[forecast.basis],
        measured_answers=forecast.measured,
    )


def _amount(amounts: Amounts) -> pb.ForecastAmount:
    return pb.ForecastAmount(low=amounts.low, expected=amounts.expected, high=amounts.high)
