"""Which brands are looked for, under which names, and what is not one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import regex

from services.metrics.brands.folding import fold
from services.metrics.brands.names import WORDS_MAX, Name, split_name
from services.runtime.errors import InvalidField

T = TypeVar("T")

NAMES_MAX = 10_000
"""Names and aliases of one request together."""

_TURKISH_LETTERS = frozenset("\u0131\u0130\u015f\u015e\u011f\u011e")
_LABEL = r"[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}-]{0,61}[\p{L}\p{M}\p{N}])?"
_DOMAIN = regex.compile(rf"(?=.{{4,253}}$)(?:{_LABEL}\.)+\p{{L}}[\p{{L}}\p{{M}}\p{{N}}-]+")


@dataclass(frozen=True, slots=True)
class Brand:
    """A brand as it was declared. Texts are as a person writes them."""

    name: str
    aliases: tuple[str, ...] = ()
    excluded_contexts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BrandNames:
    """The checked names of a list of brands, taken apart; each with the index of its brand."""

    names: tuple[tuple[Name, int], ...]
    contexts: tuple[tuple[Name, int], ...]
    domains: dict[str, int]


def check_brands(brands: Sequence[Brand], path: str = "brands") -> BrandNames:
    """The names of `brands`.

    Raises:
        InvalidField: a name has no letter or digit, belongs to two brands, or a context or domain makes no sense.
    """
    names: dict[Name, int] = {}
    contexts: list[tuple[Name, int]] = []
    domains: dict[str, int] = {}
    others: list[tuple[Name, int]] = []
    for index, brand in enumerate(brands):
        where = f"{path}[{index}]"
        own: list[Name] = []
        for field, text in _named(where, brand):
            name = _split(field, text)
            _claim(names, name, index, brands, field, text)
            own.append(name)
            others += [(_split(field, form), index) for form in (*_turkish_forms(text), *_escaped_forms(text))]
        for position, text in enumerate(brand.excluded_contexts):
            field = f"{where}.excluded_contexts[{position}]"
            phrase = _split(field, text)
            if not any(_holds(phrase, name) for name in own):
                raise InvalidField(field, f"{text!r} holds no name of {brand.name!r}: give a phrase with one in it")
            contexts += [(form, index) for form in _context_forms(phrase)]
        for position, text in enumerate(brand.domains):
            field = f"{where}.domains[{position}]"
            _claim(domains, _domain(field, text), index, brands, field, text)
    if len(names) > NAMES_MAX:
        raise InvalidField(path, f"has {len(names):,} names, at most {NAMES_MAX:,} can be looked for at once")
    for name, index in others:
        names.setdefault(name, index)
    return BrandNames(tuple(names.items()), tuple(contexts), domains)


def _named(where: str, brand: Brand) -> list[tuple[str, str]]:
    return [(f"{where}.name", brand.name)] + [
        (f"{where}.aliases[{index}]", alias) for index, alias in enumerate(brand.aliases)
    ]


def _turkish_forms(text: str) -> list[str]:
    """A Turkish name in capitals and in small letters as they are there: the i without a dot is a letter of its own.

    Unicode folds "I" to the i with a dot, in which "YOLLARI" and "Yollar\u0131" differ.
    """
    if not _TURKISH_LETTERS & set(text):
        return []
    return [text.replace("\u0131", "I"), text.replace("I", "\u0131")]


def _escaped_forms(text: str) -> list[str]:
    """A name as HTML writes it, where that differs: "H&amp;M", "McDonald&#39;s"."""
    escaped = text.replace("&", "&amp;")
    forms = (escaped, escaped.replace("'", "&#39;"))
    return [form for form in dict.fromkeys(forms) if form != text]


def _claim(taken: dict[T, int], key: T, index: int, brands: Sequence[Brand], field: str, text: str) -> None:
    owner = taken.setdefault(key, index)
    if owner != index:
        raise InvalidField(field, f"{text!r} belongs to {brands[owner].name!r} already; a mention counts for one brand")


def _split(field: str, text: str) -> Name:
    name = split_name(fold(text).text)
    if name is None:
        message = f"{text!r} can't be looked for: a name has letters or digits, and at most {WORDS_MAX} words"
        raise InvalidField(field, message)
    return name


def _context_forms(phrase: Name) -> list[Name]:
    """A phrase, its plural and the same with hyphens."""
    *rest, (between, last) = phrase.words
    forms = [phrase, phrase._replace(words=(*rest, (between, last + "s")))]
    hyphenated = tuple(("-" if between == " " else between, word) for between, word in phrase.words)
    return forms if hyphenated == phrase.words else [*forms, phrase._replace(words=hyphenated)]


def _holds(phrase: Name, name: Name) -> bool:
    """Whether the words of `name` stand in `phrase`."""
    words = [word for _, word in phrase.words]
    wanted = [word for _, word in name.words]
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def _domain(field: str, text: str) -> str:
    folded = fold(text.strip()).text.removeprefix("www.").rstrip(".")
    if _DOMAIN.fullmatch(folded) is None:
        raise InvalidField(field, f"{text!r} is not a domain; write it without scheme and path, for example stripe.com")
    return folded
