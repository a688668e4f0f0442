"""Whether the answer is about what the prompt is about."""

from collections.abc import Sequence

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, unit
from services.metrics.term_weights import cosine, count_terms

NO_PROMPT = Absent("the sample has no prompt")
NO_PROMPT_TERMS = Absent("the prompt has no content words")
NO_ANSWER_TERMS = Absent("the answer has no content words")


def relevance(subject: Subject) -> Value:
    """The cosine of the content words of prompt and answer, stemmed and weighted; see `term_weights`."""
    if not subject.prompt.raw:
        return NO_PROMPT
    prompt = count_terms(subject.prompt)
    if not prompt:
        return NO_PROMPT_TERMS
    answer = count_terms(subject.answer)
    if not answer:
        return NO_ANSWER_TERMS
    return cosine(prompt, answer)


def _relevance(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return (subject.once(relevance),)


RELEVANCE = Scorer(
    name="relevance",
    version="1",
    description="Whether the answer is about what the prompt is about: 0 shares no content word, 1 uses the same ones.",
    citation="G. Salton, C. Buckley, Term-weighting approaches in automatic text retrieval (1988); weights: "
    "services/metrics/term_weights.py; Snowball English stemmer.",
    scores=(unit("Cosine of the idf-weighted, stemmed content words of prompt and answer."),),
    function=_relevance,
    needs_prompt=True,
    in_default_set=True,
)
