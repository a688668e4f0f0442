"""Whether the answer is about what the prompt is about."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, unit
from services.metrics.term_weights import TermVector, cosine, count_terms, term_vector, terms_of_words
from services.metrics.text import Text

NO_PROMPT = Absent("the sample has no prompt")
NO_PROMPT_TERMS = Absent("the prompt has no content words")
NO_ANSWER_TERMS = Absent("the answer has no content words")


# Prompts are asked again and again; longer ones are not worth keeping.
_PROMPTS_KEPT = 256
_KEPT_PROMPT_CHARACTERS = 4_000


@lru_cache(maxsize=_PROMPTS_KEPT)
def _kept_vector(prompt: str) -> TermVector:
    return term_vector(count_terms(Text(prompt)))


def _prompt_vector(prompt: Text) -> TermVector:
    return _kept_vector(prompt.raw) if len(prompt.raw) <= _KEPT_PROMPT_CHARACTERS else term_vector(count_terms(prompt))


def answer_word_terms(subject: Subject) -> list[str]:
    """The term of each of the answer's words; see `terms_of_words`."""
    return terms_of_words(subject.answer.words)


def answer_terms(subject: Subject) -> Counter[str]:
    """How often each term occurs in the answer."""
    return count_terms(subject.answer, subject.once(answer_word_terms))


def relevance(subject: Subject) -> Value:
    """The cosine of the content words of prompt and answer, stemmed and weighted; see `term_weights`."""
    if not subject.prompt.raw:
        return NO_PROMPT
    prompt = _prompt_vector(subject.prompt)
    if not prompt.weights:
        return NO_PROMPT_TERMS
    answer = subject.once(answer_terms)
    return cosine(prompt, answer) if answer else NO_ANSWER_TERMS


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
