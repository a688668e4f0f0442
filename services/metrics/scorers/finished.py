"""Whether the model came to its own end."""

from collections.abc import Sequence

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, binary

UNKNOWN_REASON = Absent("the sample does not say why the model stopped")

_OWN_END = frozenset({"STOP", "TOOL_CALLS"})
_UNKNOWN = frozenset({"", "UNSPECIFIED"})


def finished(subject: Subject) -> Value:
    """1 where the model stopped by itself, 0 where it was cut off; absent where nobody knows."""
    return UNKNOWN_REASON if subject.finish_reason in _UNKNOWN else float(subject.finish_reason in _OWN_END)


def _finished(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return (finished(subject),)


FINISHED = Scorer(
    name="finished",
    version="1",
    description="Whether the model came to its own end and was not cut off.",
    citation="The finish reason that the provider gave.",
    scores=(binary("1 for STOP and TOOL_CALLS, 0 for any other finish reason (LENGTH, CONTENT_FILTER ...)."),),
    function=_finished,
    in_default_set=True,
)
