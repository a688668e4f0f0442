"""Whether a text is English, by the small words that every English text is full of."""

from __future__ import annotations

from typing import Final

from services.metrics.text import split_words

_WORDS_READ: Final = 400
_CHARACTERS_READ: Final = 4_000
_ENGLISH: Final = frozenset(
    """
    the of and to is it that for was on are as with they at be this have from or by but not what all were we when your
    can there use each which she do how their if will up other about many then them these so some her would make like
    him into has more go see no way could my than been who its now did get may i you he his our an has does also
    """.split()
)
# What is frequent in other languages of the Latin script and no English word.
_OTHERS: Final = frozenset(
    """
    der die das und ist nicht ein eine mit den von zu auf im f\u00fcr sich auch wird sind les des et est une dans pour
    qui que pas sur avec el los las una por con del es para como il di che per non sono della een het van voor niet
    zijn um uma n\u00e3o os bir ve bu i\u00e7in ile da de en la le se och att det som jest nie si\u0119 na
    """.split()
)
_SHARE_MIN: Final = 0.12


def is_english(text: str) -> bool:
    """Whether enough of the first words are English, and more of them than of other languages'."""
    words = split_words(text[:_CHARACTERS_READ])[:_WORDS_READ]
    english = sum(word in _ENGLISH for word in words)
    return english >= _SHARE_MIN * len(words) and english > sum(word in _OTHERS for word in words)
