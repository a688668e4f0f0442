"""Whether neighbouring sentences belong together, and in this order.

English prose says again what it speaks of, points back to it, and names things before it points at them. Each of these
habits is a component between 0 and 1; the score is their weighted mean. In another language the first component still
holds, and the others have nothing to find fault with.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import accumulate, compress, count

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, unit
from services.metrics.scorers.relevance import answer_word_terms
from services.metrics.term_weights import total_weight

ONE_SENTENCE = Absent("the answer has fewer than two sentences")

_COHESION_WEIGHT = 0.30
_OPENING_WEIGHT = 0.20
_GIVENNESS_WEIGHT = 0.30
_INTRODUCTION_WEIGHT = 0.10
_ORDER_WEIGHT = 0.30

_PRONOUNS = "it its they their them this these those that he him his she her such there"
_CONNECTIVES = """
    however therefore also though but so yet still otherwise moreover furthermore instead meanwhile similarly thus hence
    consequently too both another others afterwards later finally then next second third nevertheless besides lastly
    additionally
"""
_BACK_REFERENCES = frozenset(f"{_PRONOUNS} {_CONNECTIVES}".split())
# Back references count as the opening of a sentence among its first words.
_OPENING_WORDS = 3

_DEMONSTRATIVE, _DEFINITE, _INDEFINITE = 1, 2, 3
_DETERMINERS = {
    **dict.fromkeys("this these that those such".split(), _DEMONSTRATIVE),
    **dict.fromkeys("the its their his her both".split(), _DEFINITE),
    **dict.fromkeys("a an some many several most".split(), _INDEFINITE),
}

_LAST_RANK = 3
_RANKS = {
    **dict.fromkeys("first firstly begin begins start starts".split(), 0),
    **dict.fromkeys("second secondly then next".split(), 1),
    **dict.fromkeys("third thirdly".split(), 2),
    **dict.fromkeys("finally lastly last eventually end conclusion overall summary".split(), _LAST_RANK),
}
_RANKED_WORDS = frozenset(_RANKS)
# A marker of order stands among the first words of its sentence.
_MARKER_WORDS = 4


@dataclass(slots=True)
class _Share:
    """How many of the cases that occurred were as they should be."""

    good: float = 0.0
    total: int = 0

    def add(self, good: float) -> None:
        self.good += good
        self.total += 1


@dataclass(slots=True)
class _Discourse:
    """What the sentences read so far have brought up."""

    named: set[str] = field(default_factory=set)
    """Every term."""
    introduced: dict[str, int] = field(default_factory=dict)
    """Of each noun with an indefinite article, the first sentence that had it so."""
    definite: list[tuple[str, int, bool]] = field(default_factory=list)
    """Nouns that were pointed at, the sentence, and whether they had been named before."""
    cohesions: list[float] = field(default_factory=list)
    """Of each sentence but the first, how much of its weight was in those before it."""
    before: AbstractSet[str] = frozenset()
    """The content of the sentence before."""
    before_that: AbstractSet[str] = frozenset()

    def read(self, number: int, nouns: Iterable[tuple[int, str]], content: set[str]) -> None:
        """Reads the sentence of this number: its nouns, each after the kind of its determiner, and all its terms."""
        for kind, noun in nouns:
            self._determine(number, kind, noun)
        if number:
            shared = content & self.before | content & self.before_that
            self.cohesions.append(total_weight(shared) / total_weight(content) if shared else 0.0)
        self.before_that, self.before = self.before, content
        self.named |= content

    def _determine(self, number: int, kind: int, noun: str) -> None:
        if kind == _INDEFINITE:
            self.introduced.setdefault(noun, number)
        elif kind == _DEFINITE:
            self.definite.append((noun, number, noun in self.named))
        else:
            # "This" and its like point no further back than two sentences.
            self.definite.append((noun, number, noun in self.before or noun in self.before_that))

    def cohesion(self) -> _Share:
        """How much of the sentences' weight was in the two before them."""
        return _Share(sum(self.cohesions), len(self.cohesions))

    def givenness(self) -> _Share:
        """Of nouns that are pointed at: those that were named before."""
        return _Share(sum(given for _, _, given in self.definite), len(self.definite))

    def introductions(self) -> _Share:
        """Of things that are introduced in one sentence and pointed at in another: those introduced first."""
        share = _Share()
        for noun, number, _ in self.definite:
            introduced = self.introduced.get(noun, number)
            if introduced != number:
                share.add(introduced < number)
        return share


def _opening(words: Sequence[str]) -> float:
    """1 where the first sentence points back to nothing, 0 where it opens so, a third less where it does so later."""
    if not _BACK_REFERENCES.isdisjoint(words[:_OPENING_WORDS]):
        return 0.0
    return 1.0 if _BACK_REFERENCES.isdisjoint(words) else 2.0 / 3.0


def _order(ranks: Sequence[int | None]) -> _Share:
    """Whether "first" comes early, "finally" late, and what counts in between in its order."""
    share = _Share()
    last = len(ranks) - 1
    previous, marked = 0, False
    for position, rank in enumerate(ranks):
        if rank is None:
            continue
        if rank == 0:
            share.add(1.0 - position / last)
        elif rank == _LAST_RANK:
            share.add(position / last)
        if marked:
            share.add(previous <= rank)
        previous, marked = rank, True
    return share


def _rank(words: Sequence[str]) -> int | None:
    opening = words[:_MARKER_WORDS]
    if _RANKED_WORDS.isdisjoint(opening):
        return None
    return min(_RANKS[word] for word in opening if word in _RANKS)


def _mean(components: Iterable[tuple[float, _Share]]) -> float:
    """The weighted mean of the shares in which something occurred."""
    defined = [(weight, share.good / share.total) for weight, share in components if share.total]
    return sum(weight * value for weight, value in defined) / sum(weight for weight, _ in defined)


def _nouns(ends: Sequence[int], words: Sequence[str], terms: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Of each sentence, given where they end: the terms that follow a determiner, each after its kind."""
    kinds = list(map(_DETERMINERS.get, words))
    for end in ends:
        kinds[end - 1] = None  # the next word is another sentence's
    nouns: list[list[tuple[int, str]]] = [[] for _ in ends]
    for place, kind, noun in compress(zip(count(), kinds, terms[1:], strict=False), kinds):
        if kind and noun:
            nouns[bisect_right(ends, place)].append((kind, noun))
    return nouns


def _read(sentences: Sequence[Sequence[str]], words: Sequence[str], terms: Sequence[str]) -> _Discourse:
    """What the sentences bring up, given the words of each, and all words with their terms."""
    discourse = _Discourse()
    ends = list(accumulate(map(len, sentences)))
    for number, nouns in enumerate(_nouns(ends, words, terms)):
        content = set(terms[ends[number] - len(sentences[number]) : ends[number]])
        content.discard("")
        discourse.read(number, nouns, content)
    return discourse


def coherence(subject: Subject) -> Value:
    """The coherence of the answer's sentences; absent where there are fewer than two."""
    sentences = subject.answer.words_by_sentence
    if len(sentences) < 2:
        return ONE_SENTENCE
    discourse = _read(sentences, subject.answer.words, subject.once(answer_word_terms))
    return _mean(
        (
            (_COHESION_WEIGHT, discourse.cohesion()),
            (_OPENING_WEIGHT, _Share(_opening(sentences[0]), 1)),
            (_GIVENNESS_WEIGHT, discourse.givenness()),
            (_INTRODUCTION_WEIGHT, discourse.introductions()),
            (_ORDER_WEIGHT, _order(list(map(_rank, sentences)))),
        )
    )


def _coherence(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return (subject.once(coherence),)


COHERENCE = Scorer(
    name="coherence",
    version="1",
    description="Whether neighbouring sentences belong together, and in this order; the order's signs are English.",
    citation="After M. A. K. Halliday, R. Hasan, Cohesion in English (1976), and R. Barzilay, M. Lapata, Modeling "
    "local coherence (2008); components and weights: services/metrics/scorers/coherence.py.",
    scores=(
        unit(
            "Weighted mean of: content words shared with the two sentences before; a first sentence that points back "
            "to nothing; things named before they are pointed at; 'first' early and 'finally' late. Absent for one "
            "sentence."
        ),
    ),
    function=_coherence,
    in_default_set=True,
)
