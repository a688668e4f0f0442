"""Which calls a budget counts, and how the budgets of a call are found among many."""

from dataclasses import astuple, dataclass
from typing import NamedTuple

from services.cost.usage import Attribution
from services.runtime.errors import InvalidField

ID_LENGTH_MAX = 64
TAG_LENGTH_MAX = 321
"""A key of 64 characters, an equals sign, a value of 256."""
MODEL_LENGTH_MAX = 321
"""A provider's name of 64 characters, a slash, a model's name of 256."""
PROJECT_ANCHOR = ""
"""The anchor of a budget on the whole project."""


class Target(NamedTuple):
    """What decides which budgets a call is charged to."""

    provider: str
    model: str
    """The model that was asked for, whichever answers."""
    attribution: Attribution


@dataclass(frozen=True, slots=True)
class Scope:
    """The calls that a budget counts: those that have everything it names. Empty text names nothing."""

    user_id: str = ""
    key_id: str = ""
    run_id: str = ""
    tag: str = ""
    """key=value."""
    model: str = ""
    """provider/model."""

    def matches(self, target: Target) -> bool:
        """Whether a call is counted."""
        attribution = target.attribution
        return (
            (not self.user_id or self.user_id == attribution.user_id)
            and (not self.key_id or self.key_id == attribution.key_id)
            and (not self.run_id or self.run_id == attribution.run_id)
            and (not self.tag or self.tag in map("=".join, attribution.tags))
            and (not self.model or self.model == f"{target.provider}/{target.model}")
        )

    @property
    def anchor(self) -> str:
        """The part of the scope under which it is looked up: of those that it names, the one with the fewest calls.

        A call can match only budgets that are anchored at one of its `anchors_of`.
        """
        if self.run_id:
            return f"run:{self.run_id}"
        if self.user_id:
            return f"user:{self.user_id}"
        if self.key_id:
            return f"key:{self.key_id}"
        if self.tag:
            return f"tag:{self.tag}"
        return f"model:{self.model}" if self.model else PROJECT_ANCHOR

    def __str__(self) -> str:
        """For people: "user usr_1, tag team=research", or "the whole project"."""
        names = zip(("user", "key", "run", "tag", "model"), astuple(self), strict=True)
        return ", ".join(f"{name} {value}" for name, value in names if value) or "the whole project"


def anchors_of(target: Target) -> list[str]:
    """Every anchor at which a call's budgets can be."""
    attribution = target.attribution
    return [
        PROJECT_ANCHOR,
        f"model:{target.provider}/{target.model}",
        f"user:{attribution.user_id}",
        f"key:{attribution.key_id}",
        f"run:{attribution.run_id}",
        # Two tags with one text would match a budget twice.
        *dict.fromkeys([f"tag:{key}={value}" for key, value in attribution.tags]),
    ]


def check_scope(scope: Scope, field: str) -> Scope:
    """A scope whose tag is key=value and whose model is provider/model; InvalidField names the part of `field`."""
    for name, value, longest in (
        ("user_id", scope.user_id, ID_LENGTH_MAX),
        ("key_id", scope.key_id, ID_LENGTH_MAX),
        ("run_id", scope.run_id, ID_LENGTH_MAX),
        ("tag", scope.tag, TAG_LENGTH_MAX),
        ("model", scope.model, MODEL_LENGTH_MAX),
    ):
        if len(value) > longest:
            raise InvalidField(f"{field}.{name}", f"It has {len(value)} characters; at most {longest} are allowed.")
    key, separator, _ = scope.tag.partition("=")
    if scope.tag and not (key and separator):
        raise InvalidField(f"{field}.tag", f"{scope.tag!r} is not key=value; write one such as team=research.")
    if scope.model and not all(scope.model.partition("/")[::2]):
        raise InvalidField(f"{field}.model", f"{scope.model!r} is not provider/model; write one such as openai/gpt-4o.")
    return scope
