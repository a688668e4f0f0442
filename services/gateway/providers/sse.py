"""Server-sent events, parsed as they arrive.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". `id` and `retry` are of no use to a caller that
never reconnects, so they are skipped.
"""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
"""What a text may begin with, and means nothing."""


class SseEvent(NamedTuple):
    """One dispatched event. `event` is empty where the server named none."""

    event: bytes
    data: bytes


class SseEventTooLarge(ValueError):
    """An event is larger than the limit: the peer is broken or hostile."""


class SseParser:
    """Takes bytes in pieces of any size and gives the events that they complete.

    An event that the stream ends in the middle of is never given, as the specification demands.
    """

    __slots__ = ("_at_start", "_between", "_data", "_event", "_held", "_max_event_bytes", "_pending", "_skip_newline")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending: list[bytes] = []
        self._held = 0
        self._data: list[bytes] = []
        self._event = b""
        self._skip_newline = False
        self._at_start = True
        # Nothing of an event has come: a piece is likely to be a whole one.
        self._between = True

    def feed(self, piece: bytes) -> list[SseEvent]:
        """The events completed by these bytes. Raises SseEventTooLarge."""
        if self._between and self._is_one_event(piece):
            self._at_start = False
            return [SseEvent(b"", piece[6:-2])]
        self._between = False
        piece = self._with_unix_newlines(piece)
        self._held += len(piece)
        if self._held > self._max_event_bytes and self._held - piece.rfind(b"\n") > self._max_event_bytes:
            raise SseEventTooLarge(f"a server-sent event is larger than {self._max_event_bytes} bytes")
        if b"\n" not in piece:
            if piece:
                self._pending.append(piece)
            return []
        self._pending.append(piece)
        lines = b"".join(self._pending).split(b"\n")
        self._pending = [lines.pop()]
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(BOM)
        events = [event for line in lines if (event := self._take(line)) is not None]
        self._held = len(self._pending[0]) + sum(map(len, self._data))
        if self._held > self._max_event_bytes:
            raise SseEventTooLarge(f"a server-sent event is larger than {self._max_event_bytes} bytes")
        self._between = not (self._held or self._data or self._event or self._skip_newline)
        return events

    def _is_one_event(self, piece: bytes) -> bool:
        """Whether the bytes are one whole event of one line of data, as most pieces of most streams are."""
        return (
            piece.startswith(b"data: ")
            and piece.find(b"\n") == len(piece) - 2
            and piece.endswith(b"\n\n")
            and b"\r" not in piece
            and len(piece) <= self._max_event_bytes
        )

    def _take(self, line: bytes) -> SseEvent | None:
        """One whole line; the event that it completes."""
        if not line:
            event = SseEvent(self._event, b"\n".join(self._data)) if self._data else None
            self._data, self._event = [], b""
            return event
        if line.startswith(b"data:"):
            self._data.append(_value(line, 5))
        elif line.startswith(b"event:"):
            self._event = _value(line, 6)
        elif line == b"data":
            self._data.append(b"")
        return None

    def _with_unix_newlines(self, piece: bytes) -> bytes:
        """Lines may end with LF, CR LF or CR, and a CR LF may be torn apart."""
        if self._skip_newline and piece:
            self._skip_newline = False
            piece = piece.removeprefix(b"\n")
        if b"\r" in piece:
            self._skip_newline = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece


def _value(line: bytes, start: int) -> bytes:
    return line[start + 1 :] if line[start : start + 1] == b" " else line[start:]
