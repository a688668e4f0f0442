"""A score from a server that its user runs."""

from __future__ import annotations

from pydantic import Field

from services.metrics.declarations import Direction, Parameters, Scale, ScoreDeclaration, Scorer


class RemoteParameters(Parameters):
    """Which server is asked."""

    scorer: str = Field(description="The remote scorer, by the name that the operator gave it.")


REMOTE = Scorer(
    name="remote",
    version="1",
    description="A score from a server of your own, which the operator of this one has named.",
    citation="The server's; it implements llmlab.api.metrics.v1.ScorerService.",
    scores=(ScoreDeclaration("", Scale.REAL, Direction.HIGHER_IS_BETTER, "What the remote scorer gives."),),
    parameters=RemoteParameters,
    signature=lambda parameters: f"remote:{parameters.scorer}",
)
