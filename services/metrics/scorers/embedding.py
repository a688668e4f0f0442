"""Scores from the vectors that an embedding model gives texts: what is alike in meaning lies in the same direction."""

from __future__ import annotations

from pydantic import Field

from services.metrics.declarations import Direction, Parameters, Scale, ScoreDeclaration, Scorer

SENTENCES_MAX = 64
"""The first sentences of an answer, which bound what its coherence costs."""


class EmbeddingParameters(Parameters):
    """Who makes the vectors."""

    model: str = Field(
        max_length=256,
        pattern=r"^[^/\s]+/\S+$",
        description='The embedding model, as "provider/model". Its vectors are paid calls.',
    )


def _scorer(name: str, description: str, score: str, *, prompt: bool = False, reference: bool = False) -> Scorer:
    return Scorer(
        name=name,
        version="1",
        description=f"Model-based: {description}",
        citation="Cosine of the vectors of the model that the signature names.",
        scores=(ScoreDeclaration("", Scale.REAL, Direction.HIGHER_IS_BETTER, score, -1.0, 1.0),),
        parameters=EmbeddingParameters,
        needs_prompt=prompt,
        needs_reference=reference,
        needs_model=True,
        signature=lambda parameters: f"embedding:{parameters.model}",
    )


RELEVANCE_EMBEDDING = _scorer(
    "relevance_embedding",
    "whether the answer is about what the prompt is about.",
    "Cosine of the vectors of prompt and answer, -1 to 1.",
    prompt=True,
)
COHERENCE_EMBEDDING = _scorer(
    "coherence_embedding",
    "whether neighbouring sentences of the answer are about the same.",
    f"Mean cosine of the vectors of neighbouring sentences, -1 to 1; of the first {SENTENCES_MAX} sentences.",
)
EMBEDDING_SIMILARITY = _scorer(
    "embedding_similarity",
    "whether the answer means the same as a reference.",
    "Cosine of the vectors of the answer and the nearest reference, -1 to 1.",
    reference=True,
)
