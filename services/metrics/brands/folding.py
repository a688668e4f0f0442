"""Text folded for comparison (NFKC, case folding, typographic signs as their ASCII cousins), and the way back.

Nearly every character folds to one, which a table does for whole texts at once; the few that become several or none, or
melt into their neighbour, are folded piece by piece and remembered with their places. Offsets found in the folded text
lead back to the original by `Folded.original_span`.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from typing import Final

import numpy as np
import numpy.typing as npt

from services.metrics.brands.characters import any_kept, fold_character, is_composing, joins
from services.runtime.stopping import check_stopped

_PAGE_BITS: Final = 8
_PAGE_SIZE: Final = 1 << _PAGE_BITS
_CODE_POINTS: Final = 0x110000
_SPECIAL: Final = 0xFFFFFFFF
_PIECE_LENGTH_MAX: Final = 32
"""A letter and its marks; more marks are folded by themselves (as in the Stream-Safe Text Format, Unicode Standard
Annex 15, which takes 30): Python sorts the marks of one letter in time that grows with the square of their number."""
_PARTS_PER_CHECK: Final = 8_192
_PIECES_KEPT_MAX: Final = 4_096
_PIECE_KEPT_LENGTH_MAX: Final = 8
_DOT_ABOVE: Final = "\u0307"
_ZERO_WIDTH_SPACE: Final = "\u200b"

Codes = npt.NDArray[np.uint32]


class _FoldingTable:
    """What each code point folds to, or a sign that it takes more than a table; filled page by page when needed."""

    def __init__(self) -> None:
        self._folded: Codes = np.zeros(_CODE_POINTS, np.uint32)
        self._known = np.zeros(_CODE_POINTS >> _PAGE_BITS, np.bool_)

    def fold(self, codes: Codes) -> Codes:
        """The folded code points."""
        pages = codes >> _PAGE_BITS
        known = self._known[pages]
        if not known.all():
            for page in np.unique(pages[~known]).tolist():
                self._fill(page)
        return self._folded[codes]

    def _fill(self, page: int) -> None:
        for code_point in range(page * _PAGE_SIZE, (page + 1) * _PAGE_SIZE):
            character = chr(code_point)
            folded = fold_character(character)
            simple = len(folded) == 1 and not is_composing(character)
            self._folded[code_point] = ord(folded) if simple else _SPECIAL
        self._known[page] = True


_TABLE = _FoldingTable()
_pieces: dict[str, str] = {}


class Folded:
    """A folded text that knows where its characters come from."""

    __slots__ = ("_ends", "_original_ends", "_original_starts", "_starts", "text")

    def __init__(self, text: str) -> None:
        """Takes folded text whose characters stand where they stood, but for those that `add_piece` tells of."""
        self.text = text
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._original_starts: list[int] = []
        self._original_ends: list[int] = []

    def add_piece(self, start: int, end: int, original_start: int, original_end: int) -> None:
        """The characters from `start` to `end` stand for the original ones between the others; from left to right."""
        self._starts.append(start)
        self._ends.append(end)
        self._original_starts.append(original_start)
        self._original_ends.append(original_end)

    @property
    def moved(self) -> bool:
        """Whether any character stands elsewhere than in the original."""
        return bool(self._starts)

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Where the folded characters from `start` to `end` (at least one) stand in the original text."""
        return self._original(start, self._original_starts), self._original(end - 1, self._original_ends, 1)

    def _original(self, position: int, inside: list[int], width: int = 0) -> int:
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return position + width
        if position < self._ends[index]:
            return inside[index]
        return position - self._ends[index] + self._original_ends[index] + width


def fold(text: str) -> Folded:
    """`text` folded. Linear in its length."""
    if text.isascii():
        return Folded(text.lower())
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    folded = _TABLE.fold(codes)
    special = np.flatnonzero(folded == _SPECIAL)
    if not len(special):
        return Folded(folded.tobytes().decode("utf-32-le"))
    return _fold_pieces(text, folded, special.tolist())


def _fold_pieces(text: str, folded: Codes, special: list[int]) -> Folded:
    pieces: list[str] = []
    result = Folded("")
    copied = length = 0  # of the original, of the result
    index = 0
    while index < len(special):
        if not len(pieces) % _PARTS_PER_CHECK:
            check_stopped()
        start = end = special[index]
        if start > copied and is_composing(text[start]):
            start -= 1
        end += 1
        index += 1
        limit = start + _PIECE_LENGTH_MAX
        while index < len(special) and special[index] == end < limit and is_composing(text[end]):
            end += 1
            index += 1
        before = folded[copied:start].tobytes().decode("utf-32-le")
        piece = " " if _parts_words(text, start, end) else _fold_piece(text[start:end])
        pieces += (before, piece)
        length += len(before)
        result.add_piece(length, length + len(piece), start, end)
        length += len(piece)
        copied = end
    pieces.append(folded[copied:].tobytes().decode("utf-32-le"))
    result.text = "".join(pieces)
    return result


def _parts_words(text: str, start: int, end: int) -> bool:
    """Whether a zero-width space stands between words, as in Thai; inside a word it can't be seen."""
    if text[start:end] != _ZERO_WIDTH_SPACE:
        return False
    return not (start > 0 and end < len(text) and joins(text[start - 1], text[end]))


def _fold_piece(piece: str) -> str:
    """A character with what melts into it."""
    known = _pieces.get(piece)
    if known is None:
        composed = piece if any_kept(piece) else unicodedata.normalize("NFKC", piece)
        known = "".join(map(fold_character, composed))
        if _DOT_ABOVE in known:
            known = known.replace("i" + _DOT_ABOVE, "i")
        if len(_pieces) < _PIECES_KEPT_MAX and len(piece) <= _PIECE_KEPT_LENGTH_MAX:
            _pieces[piece] = known
    return known
