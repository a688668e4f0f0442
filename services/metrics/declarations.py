"""What a scorer is: a pure function with a declaration of everything that a reader of its numbers needs to know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from services.metrics.text import Text

T = TypeVar("T")


class Scale(Enum):
    """How a score's numbers are to be read."""

    BINARY = "binary"
    """0 or 1."""
    UNIT = "unit"
    """0 to 1."""
    COUNT = "count"
    """A count, 0 or more."""
    REAL = "real"
    """Any number; the declaration says where it ends, if it does."""


class Direction(Enum):
    """In which direction a score is better."""

    HIGHER_IS_BETTER = "higher"
    LOWER_IS_BETTER = "lower"
    NEUTRAL = "neutral"
    """Neither: it describes."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A score that is not defined for this answer, and why. It is never 0."""

    reason: str


Value: TypeAlias = float | Absent


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """One parameter of a scorer, for people who look for one."""

    name: str
    type: str
    """"string", "int", "double", "bool" or "list of string"."""
    description: str
    required: bool
    default: object
    """None where it is required."""
    choices: tuple[str, ...] = ()
    """The values that it takes; empty where every value of its type may be tried."""


_TYPE_NAMES = {
    "string": "string",
    "integer": "int",
    "number": "double",
    "boolean": "bool",
    "array": "list of string",
}
"""Names of types by those of JSON schema."""


class Parameters(BaseModel):
    """Base of scorers' parameters: nothing unknown is accepted, and no type is converted into another."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def describe(cls) -> list[ParameterDescription]:
        """Every parameter, in the order of declaration."""
        schemas = cls.model_json_schema()["properties"] if cls.model_fields else {}
        return [
            ParameterDescription(
                name=name,
                type=_TYPE_NAMES[schemas[name]["type"]],
                description=field.description or "",
                required=field.is_required(),
                default=None if field.is_required() else field.default,
                choices=tuple(schemas[name].get("enum", ())),
            )
            for name, field in zip(cls.names(), cls.model_fields.values(), strict=True)
        ]

    @classmethod
    def names(cls) -> list[str]:
        """The names that callers use, in the order of declaration."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class NoParameters(Parameters):
    """A scorer without parameters."""


class Subject:
    """An answer with all that scorers may compare it with. Scorers that need the same finding share it by `once`."""

    __slots__ = ("_findings", "answer", "finish_reason", "prompt", "references")

    def __init__(
        self, answer: str, *, prompt: str = "", references: Sequence[str] = (), finish_reason: str = ""
    ) -> None:
        """Takes the texts as they are; `finish_reason` is empty where nobody knows why the model stopped."""
        self.answer = Text(answer)
        self.prompt = Text(prompt)
        self.references = tuple(references)
        self.finish_reason = finish_reason
        self._findings: dict[Callable[[Subject], Any], Any] = {}

    def once(self, find: Callable[["Subject"], T]) -> T:
        """`find(self)`, computed on the first call and remembered. `find` has to be a pure module-level function."""
        if find not in self._findings:
            self._findings[find] = find(self)
        finding: T = self._findings[find]
        return finding


@dataclass(frozen=True, slots=True)
class ScoreDeclaration:
    """One score that a scorer gives."""

    part: str
    """Its name within the scorer; empty for the scorer's main score."""
    scale: Scale
    direction: Direction
    description: str
    """What it means, with its unit."""
    minimum: float | None = None
    """The lowest possible value; None where there is no lowest."""
    maximum: float | None = None
    """The highest possible value; None where there is no highest."""


def binary(description: str, part: str = "") -> ScoreDeclaration:
    """Declares a score that is 1 where the answer is right, else 0."""
    return ScoreDeclaration(part, Scale.BINARY, Direction.HIGHER_IS_BETTER, description, 0.0, 1.0)


def unit(description: str, part: str = "", direction: Direction = Direction.HIGHER_IS_BETTER) -> ScoreDeclaration:
    """Declares a score between 0 and 1."""
    return ScoreDeclaration(part, Scale.UNIT, direction, description, 0.0, 1.0)


def count(description: str, part: str = "") -> ScoreDeclaration:
    """Declares a count, which describes and is neither good nor bad."""
    return ScoreDeclaration(part, Scale.COUNT, Direction.NEUTRAL, description, 0.0, None)


ScoreFunction: TypeAlias = Callable[[Subject, Any], Sequence[Value]]
"""Takes the subject and the scorer's validated parameters; gives one value for each declared score, in their order."""


def scored_outside(_subject: Subject, _parameters: Parameters) -> Sequence[Value]:
    """Stands for the function of a scorer that has to ask others (`outside`), which never runs in a worker."""
    raise TypeError("this scorer asks others and is no function of the texts alone")


@dataclass(frozen=True, slots=True)
class Scorer:
    """A scorer, declared once."""

    name: str
    version: str
    """Changes whenever the numbers may change."""
    description: str
    citation: str
    """Where the definition comes from."""
    scores: tuple[ScoreDeclaration, ...]
    function: ScoreFunction = scored_outside
    parameters: type[Parameters] = NoParameters
    needs_prompt: bool = False
    needs_reference: bool = False
    needs_model: bool = False
    """Whether it calls a model, at the caller's expense."""
    in_default_set: bool = False
    signature: Callable[[Any], str] | None = None
    """What a published number has to be accompanied by, made from the parameters; None where the name says it all."""

    @property
    def outside(self) -> bool:
        """Whether it asks others, and so runs beside the workers."""
        return self.function is scored_outside

    def score_name(self, part: str, label: str = "") -> str:
        """The full name of one of its scores: the label (the scorer's name unless given), a point and the part."""
        root = label or self.name
        return f"{root}.{part}" if part else root
