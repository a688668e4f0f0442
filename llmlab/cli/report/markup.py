"""Elements of the page. Text and attributes are escaped when they are written, wherever they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, SubElement, tostring

Child: TypeAlias = "Element | str | None"

# What could end a script element, begin a comment in it, or end a line in old JavaScript.
_JSON_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: object) -> Element:
    """Makes an element; `class_` is its class, other underscores are hyphens, and attributes of None are left out."""
    element = Element(name, {_attribute(key): str(value) for key, value in attributes.items() if value is not None})
    for child in children:
        if child is None or isinstance(child, str | Element):
            _append(element, child)
        else:
            for each in child:
                _append(element, each)
    return element


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _append(element: Element, child: Child) -> None:
    if child is None:
        return
    if not isinstance(child, str):
        element.append(child)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + child
    else:
        element.text = (element.text or "") + child


def add_tag(parent: Element, name: str, /, **attributes: object) -> Element:
    """Adds an element without text to another."""
    return SubElement(parent, name, {_attribute(key): str(value) for key, value in attributes.items()})


def html_of(element: Element) -> str:
    """Writes an element as HTML."""
    return tostring(element, encoding="unicode", method="html")


def json_block(value: Any) -> str:
    """Writes data as a script element that no browser runs and no text in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_JSON_ESCAPES)
    return f'<script type="application/json" class="data">{text}</script>\n'
