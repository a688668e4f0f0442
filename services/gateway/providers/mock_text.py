"""What the mock models say: text that depends on model, prompt, parameters and repeat, and on nothing else.

Larger models stay on the topic, vary their words, add structure and get sums right; smaller ones repeat themselves. A
higher temperature means longer, more varied and, above 1, less relevant answers. So a sweep over mock models shows
differences that a scorer can find, and the same sweep shows the same ones again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random
from typing import Any

_OPENINGS = (
    "In short, {topic} depends on a few things that can be checked.",
    "The main point about {topic} is simple.",
    "Here is a practical view of {topic}.",
    "It helps to look at {topic} from two sides.",
    "There is no single answer, but {topic} follows some clear rules.",
)
_SENTENCES = (
    "For {topic}, start with the {adjective} {noun} and measure what changes.",
    "A {adjective} {noun} matters more than most people expect when {topic} is involved.",
    "Compare {topic} with a {adjective} {noun} before you decide.",
    "The {noun} should stay {adjective}, because {topic} changes over time.",
    "Many teams treat {topic} as a {adjective} {noun}, and that works until the load grows.",
    "When {topic} gets difficult, a {adjective} {noun} keeps the cost low.",
    "Write down how {topic} relates to the {noun}, and review it every month.",
    "Without a {adjective} {noun}, {topic} turns into guesswork.",
)
_REPEATED = "This is important for {topic}."
_DRIFTS = (
    "Meanwhile, the harbour lights blink over a quiet {noun}.",
    "A {adjective} cloud once argued with a {noun} about the tides.",
    "Somewhere a clock dreams of a {adjective} {noun}.",
)
_ADJECTIVES = (
    "simple", "careful", "steady", "local", "early", "shared", "small", "public", "precise", "robust",
    "flexible", "modern", "transparent", "reliable", "incremental", "measurable",
)  # fmt: skip
_NOUNS = (
    "plan", "method", "budget", "review", "baseline", "process", "sample", "schedule", "metric", "record",
    "experiment", "trade-off", "boundary", "interface", "feedback loop", "checklist",
)  # fmt: skip
_STOP_WORDS = frozenset(
    "about above after again answer because before being between could does doing down during each explain from have "
    "having here into just more most name only other over please same short should some such tell than that their "
    "them then there these they this those through under until very what when where which while will with would "
    "write your".split()
)
_WORD = re.compile(r"[^\W\d_]{4,}")
_SUM = re.compile(r"(?<![\w.])(-?\d{1,9})\s*([-+*x])\s*(-?\d{1,9})(?![\w.])")
_PROMPT_READ = 4_000
_TOPICS_MAX = 12


@dataclass(frozen=True, slots=True)
class Voice:
    """How a mock model writes. `skill` is 0 - 1: relevance, variety and right answers."""

    sentences: int
    skill: float
    structured: bool


def mock_text(random: Random, voice: Voice, prompt: str, temperature: float) -> str:
    """One answer to a prompt."""
    prompt = prompt[-_PROMPT_READ:]
    if found := _SUM.search(prompt):
        return _sum_answer(random, voice, prompt, found, temperature)
    topics = _topics(prompt)
    drift = max(0.0, (temperature - 1.0) * 0.6)
    variety = min(1.0, voice.skill * (0.55 + 0.45 * min(temperature, 1.0)))
    count = max(1, voice.sentences + round(temperature * 2 * random.random()))
    lines = [_filled(random, _pick(random, _OPENINGS), topics)]
    last = _SENTENCES[0]
    for _ in range(count):
        if random.random() < drift:
            template = _pick(random, _DRIFTS)
        elif random.random() < variety:
            template = last = _pick(random, _SENTENCES)
        else:
            template = last if random.random() < 0.5 else _REPEATED
        on_topic = topics if random.random() < 0.35 + 0.65 * voice.skill else ("it",)
        lines.append(_filled(random, template, on_topic))
    if voice.structured and len(lines) > 3:
        points = "\n".join(f"- {line}" for line in lines[1:-1])
        return f"{lines[0]}\n\n{points}\n\n{lines[-1]}"
    return " ".join(lines)


def value_of_schema(random: Random, schema: Any, depth: int = 0) -> Any:
    """Some value that fits a JSON schema's plain keywords (type, properties, items, enum, const, minimum, maximum)."""
    if not isinstance(schema, dict) or depth > 8:
        return None
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return _pick(random, tuple(schema["enum"]))
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        properties = schema.get("properties")
        named = properties.items() if isinstance(properties, dict) else ()
        return {name: value_of_schema(random, inner, depth + 1) for name, inner in named}
    if kind == "array":
        return [value_of_schema(random, schema.get("items"), depth + 1)]
    return _scalar(random, kind, schema)


def _scalar(random: Random, kind: Any, schema: dict[str, Any]) -> Any:
    low = _number(schema.get("minimum"), 0)
    span = max(0, _number(schema.get("maximum"), low + 10) - low)
    values = {
        "integer": int(low) + int(random.random() * span),
        "number": round(float(low) + random.random() * span, 2),
        "boolean": random.random() < 0.5,
        "string": _pick(random, _NOUNS),
    }
    return values.get(kind) if isinstance(kind, str) else None


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, int | float) else otherwise


def _topics(prompt: str) -> tuple[str, ...]:
    """The prompt's own words, each once, without those that every prompt has."""
    words = dict.fromkeys(word for word in _WORD.findall(prompt.lower()) if word not in _STOP_WORDS)
    return tuple(words)[:_TOPICS_MAX] or ("this question",)


def _sum_answer(random: Random, voice: Voice, prompt: str, found: re.Match[str], temperature: float) -> str:
    left, operator, right = int(found[1]), found[2], int(found[3])
    result = left + right if operator == "+" else left - right if operator == "-" else left * right
    if random.random() > voice.skill - 0.12 * temperature:
        result += 1 + int(random.random() * 9)
    return str(result) if "only" in prompt.lower() else f"The answer is {result}."


def _filled(random: Random, template: str, topics: tuple[str, ...]) -> str:
    return template.format(
        topic=_pick(random, topics), adjective=_pick(random, _ADJECTIVES), noun=_pick(random, _NOUNS)
    )


def _pick(random: Random, options: tuple[Any, ...]) -> Any:
    # random.choice differs between Python versions; this does not.
    return options[int(random.random() * len(options))]


def mock_vector(random: Random, dimensions: int) -> tuple[float, ...]:
    """A vector of length 1 in any direction."""
    drawn = [random.gauss(0.0, 1.0) for _ in range(dimensions)]
    length = math.hypot(*drawn) or 1.0
    return tuple(value / length for value in drawn)
