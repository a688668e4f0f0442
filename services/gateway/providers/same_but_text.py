"""Events of a stream that differ in one text alone, as most of most streams do: told without reading the rest again."""

from __future__ import annotations

import orjson


class SameButText:
    """Learns an event of JSON around the value of its only `key`, and knows others that differ in that alone.

    A string that takes another string's place in a JSON text leaves everything else as it was; so what was found out of
    the event that was learned holds of all that are the same around it.
    """

    __slots__ = ("_after", "_before", "_key", "_learned")

    def __init__(self, key: str) -> None:
        self._key = f'"{key}":'.encode()
        self._before = self._after = b""
        self._learned = False

    def learn(self, data: bytes, text: str) -> None:
        """The first event of which nothing else than `text`, under the key, was of interest; later ones are ignored."""
        if self._learned:
            return
        # Also where it cannot be learned: then others are not alike either.
        self._learned = True
        before, key, rest = data.partition(self._key)
        value = rest.lstrip(b" ")
        literal = orjson.dumps(text)
        if self._key not in rest and value.startswith(literal):
            self._before = before + key + rest[: len(rest) - len(value)]
            self._after = value[len(literal) :]

    def text(self, data: bytes) -> str:
        """The text of an event that is the same around it; empty for any other."""
        before, after = self._before, self._after
        if not before or not data.startswith(before) or not data.endswith(after):
            return ""
        try:
            text = orjson.loads(data[len(before) : len(data) - len(after)])
        except orjson.JSONDecodeError:
            return ""
        return text if isinstance(text, str) else ""
