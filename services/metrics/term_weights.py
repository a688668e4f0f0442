"""Terms of a text for comparison by subject: which words count, in which form, and how much they tell.

Nothing is downloaded and nothing is learnt from the request, so that a text's terms and their weights never change. The
weight of a word is its inverse document frequency as Zipf's law predicts it from the word's rank in general English:
the word of rank r makes up 0.1 / r of running text (G. K. Zipf, 1949), so that a document of 200 words holds it with
probability 1 - exp(-200 * 0.1 / r), and the weight is minus the logarithm of that. Words outside the list below count
as rank 5,000. Function words of the larger European languages tell nothing about the subject and weigh nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import Stemmer

from services.metrics.text import UNSPACED_CHARACTER, Text

_DOCUMENT_WORDS = 200
_ZIPF_CONSTANT = 0.1
_UNLISTED_RANK = 5_000
_FIRST_CONTENT_RANK = 60

_STEM_LENGTH_MAX = 64
_MEMORY_LIMIT = 65_536

_FUNCTION_WORDS = frozenset(
    """
    a about above across after again against all almost along already also although always am among an and another any
    anyone anything are aren't around as at away back be became because become been before being below between both but
    by can can't cannot could couldn't did didn't do does doesn't doing don't done down during each either else enough
    etc even ever every everyone everything few for from further get gets getting give given go goes going got had
    hadn't has hasn't have haven't having he her here hers herself him himself his how however i i'd i'll i'm i've if in
    indeed instead into is isn't it it's its itself just least less let let's like made make makes making many may me
    might mine more most much must my myself neither never no nobody none nor not nothing now of off often on once one
    ones only onto or other others our ours ourselves out over own per perhaps quite rather really same say says shall
    she should shouldn't since so some someone something such take than that that's the their theirs them themselves
    then there there's therefore these they they're this those though through thus to together too toward towards two
    under until up upon us use used uses using very via was wasn't we we're well were weren't what what's when where
    whether which while who whom whose why will with within without won't would wouldn't yes yet you you're your yours
    yourself der die das den dem des ein eine einer eines einem einen und oder aber nicht ist sind war im am zu zum zur
    auf f\u00fcr mit von aus bei nach \u00fcber sich auch wie als wird werden kann es er sie ich wir ihr man noch nur so
    dass wenn durch le la les un une des du de et ou mais ne pas est sont dans sur pour par avec que qui ce cette ces il
    elle on nous vous ils se sa son ses au aux plus comme leur el los las una unos unas y o pero no es son en con por
    para del al lo su sus como m\u00e1s este esta estos que se il lo gli i una uno e ma non \u00e8 sono di da in con su
    per tra che si della delle dei nel come pi\u00f9 questo questa os as um uma do da dos das em no na nos nas por com
    para que se n\u00e3o mais como seu sua foi
    """.split()
)

# Common content words of English, the most frequent first, in classes of similar frequency rather than by exact rank.
# Words that prompts use to ask ("explain", "list", "describe") are among them: they say little about the subject.
_COMMON_WORDS = """
    time people new good first way year day work right world life long little great old man thing need think know want
    see look come find tell ask try call mean seem feel leave put keep help show write provide describe explain list
    discuss answer question sentence word text paragraph example short brief detail simple different important number
    part place case week company system program point government home water room mother area money story fact month lot
    study book eye job business issue side kind head house service friend father power hour game line end member law car
    city community name president team minute idea body information school parent face level office door health person
    art war history party result change morning reason research girl guy moment air teacher force education high large
    big small next early young public bad able possible real best better better free full sure clear whole certain open
    hard easy strong special main start begin run play move live believe hold bring happen must turn follow create speak
    read allow add spend grow walk win offer remember love consider appear buy wait serve die send expect build stay
    fall cut reach kill remain suggest raise pass sell require report decide pull include continue set learn understand
    lead develop support increase reduce improve compare choose state summarize summary give step list item process
    method type form order general common usually value process model data set term total section following note main
    key several various specific current available country night family student group problem hand woman child man
    market price cost product plan rate policy question effect control design view theory field paper experience
    practice society culture industry quality value difference second third last late human local social political
    economic national international medical natural physical major recent likely particular similar simply generally
    typically especially actually probably finally means allows helps works needs around above below top bottom left
    inside outside near far ago today tomorrow yesterday often sometimes usually rarely quickly slowly nearly exactly
    roughly many both ten three four five six seven eight nine hundred thousand million
    """.split()


def _idf_of_rank(rank: int) -> float:
    """Inverse document frequency of the word of `rank` in general English; see the module."""
    return -math.log(1.0 - math.exp(-_DOCUMENT_WORDS * _ZIPF_CONSTANT / rank))


_STEMMER = Stemmer.Stemmer("english")
# The stemmer's own cache is replaced by the bounded one below.
_STEMMER.maxCacheSize = 0

_UNLISTED_WEIGHT = _idf_of_rank(_UNLISTED_RANK)


def _stem(word: str) -> str:
    return _STEMMER.stemWord(word) if len(word) <= _STEM_LENGTH_MAX else word


def _common_weights() -> dict[str, float]:
    weights: dict[str, float] = {}
    for rank, word in enumerate(dict.fromkeys(_COMMON_WORDS), start=_FIRST_CONTENT_RANK):
        weights.setdefault(_stem(word), _idf_of_rank(rank))
    return weights


_WEIGHTS: dict[str, float] = _common_weights()


class _TermMemory(dict[str, str]):
    """Words seen before and their term, "" where the word tells nothing; up to a limit."""

    def __missing__(self, word: str) -> str:
        term = "" if word in _FUNCTION_WORDS else _stem(word)
        if len(word) <= _STEM_LENGTH_MAX and len(self) < _MEMORY_LIMIT:
            self[word] = term
        return term


_TERMS = _TermMemory()


class _PartsMemory(dict[str, tuple[str, ...]]):
    """Words seen before and the terms of their parts: a hyphen joins several; up to a limit."""

    def __missing__(self, word: str) -> tuple[str, ...]:
        terms = tuple(filter(None, map(_TERMS.__getitem__, word.split("-"))))
        if len(word) <= _STEM_LENGTH_MAX and len(self) < _MEMORY_LIMIT:
            self[word] = terms
        return terms


_PARTS = _PartsMemory()


def _idf_of_terms(terms: Iterable[str]) -> Iterator[float]:
    """Each term's inverse document frequency in general English."""
    return map(_WEIGHTS.get, terms, repeat(_UNLISTED_WEIGHT))


def _with_pairs(words: Sequence[str]) -> Iterator[str]:
    """The words, with neighbouring characters of scripts without spaces as pairs.

    One such character says little: pairs are the customary unit of search in these scripts.
    """
    previous = ""
    for word in words:
        unspaced = len(word) == 1 and UNSPACED_CHARACTER.match(word) is not None
        if not unspaced:
            yield word
        elif previous:
            yield previous + word
        previous = word if unspaced else ""


def terms_of_words(words: Sequence[str]) -> list[str]:
    """The term of each word, "" where it tells nothing about the subject; a hyphenated word is one term."""
    return list(map(_TERMS.__getitem__, words))


def count_terms(text: Text, terms: Sequence[str] | None = None) -> Counter[str]:
    """How often each term occurs in `text`: stems of content words (Snowball, English), without function words.

    The parts of a hyphenated word are terms of their own. `terms` are those of the text's words, where they are known.
    """
    if text.raw.isascii() and "-" not in text.raw:
        counts = Counter(terms_of_words(text.words) if terms is None else terms)
        del counts[""]
        return counts
    spaced = text.raw.isascii() or not UNSPACED_CHARACTER.search(text.raw)
    word_counts = text.word_counts if spaced else Counter(_with_pairs(text.words))
    counts = Counter[str]()
    for word, count in word_counts.items():
        for term in _PARTS[word]:
            counts[term] += count
    return counts


def total_weight(terms: Iterable[str]) -> float:
    """The sum of the terms' inverse document frequencies in general English."""
    # fsum is exact before its last rounding: the order of a set can't show in the result.
    return math.fsum(_idf_of_terms(terms))


def _weight(term: str, count: int) -> float:
    return _WEIGHTS.get(term, _UNLISTED_WEIGHT) * (1.0 + math.log(count))


def _norm(counts: Mapping[str, int]) -> float:
    """The length of the vector of a text's term counts."""
    weights = list(_idf_of_terms(counts))
    for place, count in enumerate(counts.values()):
        if count > 1:
            weights[place] *= 1.0 + math.log(count)
    return math.hypot(*weights)


@dataclass(frozen=True, slots=True)
class TermVector:
    """A text's terms with their weights: inverse document frequency, times 1 + ln(count) where a term comes back."""

    weights: Mapping[str, float]
    norm: float


def term_vector(counts: Mapping[str, int]) -> TermVector:
    """The vector of a text's term counts."""
    return TermVector({term: _weight(term, count) for term, count in counts.items()}, _norm(counts))


def cosine(vector: TermVector, counts: Mapping[str, int]) -> float:
    """The cosine of a text's vector and another text's term counts, 0 (no shared term) to 1.

    Raises:
        ValueError: one of them is empty, so that there is no angle.
    """
    if not vector.weights or not counts:
        raise ValueError("a text without terms has no direction")
    # fsum and hypot are exact before their last rounding: the order of the terms can't show in the result.
    shared = math.fsum(
        weight * _weight(term, counts[term]) for term, weight in vector.weights.items() if term in counts
    )
    return min(1.0, shared / (vector.norm * _norm(counts)))
