"""How much the answer repeats itself."""

from collections.abc import Sequence

from services.metrics.declarations import Absent, Direction, NoParameters, Scorer, Subject, Value, unit
from services.metrics.scorers.ngrams import distinct_pairs, distinct_quadruples, distinct_triples

TOO_SHORT = Absent("the answer has fewer words than the run")


def _repeated(distinct: float | None) -> Value:
    return TOO_SHORT if distinct is None else 1.0 - distinct


def _repetition(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return (
        _repeated(subject.once(distinct_pairs)),
        _repeated(subject.once(distinct_triples)),
        _repeated(subject.once(distinct_quadruples)),
    )


REPETITION = Scorer(
    name="repetition",
    version="1",
    description="How much the answer repeats itself: rep-n is 1 - different runs of n words / runs of n words.",
    citation="S. Welleck et al., Neural text generation with unlikelihood training (2020): rep-n within one text.",
    scores=tuple(
        unit(f"rep-{n}: the share of runs of {n} words that occurred before.", f"rep_{n}", Direction.LOWER_IS_BETTER)
        for n in (2, 3, 4)
    ),
    function=_repetition,
    in_default_set=True,
)
