"""Two sides compared: which prompts are the same, and which numbers are asked about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.calls import Money, Timing, Usage
from services.orchestrator.comparison import ANSWERED, COST, FIRST, LATENCY, SECOND, Pair, Side, Units
from services.orchestrator.experiment import ExperimentSpec
from services.orchestrator.records import ResultRecord
from services.orchestrator.scores import Score
from services.orchestrator.spec_codec import encode_spec
from services.orchestrator.spec_view import SpecView
from services.orchestrator.states import CellStatus
from services.orchestrator.summary import VALUES_MAX
from services.runtime.errors import ResourceExhausted
from tests.support.orchestrator import study

PRICE = Money(4)


def view(spec: ExperimentSpec) -> SpecView:
    return SpecView(encode_spec(spec))


def record(cell: int, *, latency_us: int = 10, cost: Money = PRICE, done: bool = True) -> ResultRecord:
    status = CellStatus.DONE if done else CellStatus.FAILED
    usage, timing = Usage(input_tokens=1, output_tokens=2), Timing(latency_us=latency_us if done else 0)
    return ResultRecord("run_1", cell, 1, status, 1, 1, "STOP", "", usage, cost, timing, "", done, 1)


def quality(value: float | None) -> Score:
    return Score("quality", value, "unit", "higher")


def test_a_prompt_and_row_are_the_same_by_name_and_columns_wherever_they_stand() -> None:
    spec = study(rows=3)
    turned = replace(spec, rows=tuple(reversed(spec.rows)))
    renamed = replace(spec, prompts=(replace(spec.prompts[0], name="another"),))
    units = Units()
    numbers = [units.number(view(spec), 0, row) for row in range(3)]

    assert numbers == [0, 1, 2]
    assert [units.number(view(turned), 0, row) for row in range(3)] == [2, 1, 0]
    assert [units.number(view(renamed), 0, row) for row in range(3)] == [3, 4, 5]


def test_rows_that_only_look_alike_are_different() -> None:
    spec = replace(study(), rows=({"word": 1}, {"word": "1"}, {"word": True}))
    units = Units()
    assert len({units.number(view(spec), 0, row) for row in range(3)}) == 3


def test_what_is_missing_is_named_by_its_unit_and_an_unknown_cost_is_none() -> None:
    pair = Pair()
    pair.first.add(record(0), 0, 0, [quality(0.5)])
    pair.first.add(record(1, cost=Money(0, 1)), 1, 1, [quality(None)])
    pair.first.add(record(2, done=False), 1, 1, [])
    pair.second.add(record(0), 0, 0, [quality(0.25), Score("more", 1.0, "count", "neutral")])

    assert pair.names() == [ANSWERED, LATENCY, COST, "quality"]
    group, other = pair.question("quality").groups
    assert (group.key, group.values, group.units, group.missing_units) == (FIRST, [0.5], [0], [1, 1])
    assert (other.key, other.values) == (SECOND, [0.25])
    assert pair.question("quality").baseline == SECOND
    assert pair.first.figures[COST].values == [4, 4]
    assert pair.first.figures[ANSWERED].values == [1.0, 1.0, 0.0]
    assert pair.question(LATENCY).lower_is_better
    assert (pair.first.cells, pair.first.done, pair.first.cost) == (3, 2, Money(8, 1))
    assert pair.shared == 1


def test_units_that_differ_most_come_first_with_an_answer_of_each_side() -> None:
    pair = Pair()
    for unit, mine, theirs in ((0, 0.5, 0.5), (1, 0.5, 0.25), (2, 0.1, 0.9)):
        pair.first.add(record(10 + unit), unit, unit, [quality(mine)])
        pair.second.add(record(20 + unit), unit, 7, [quality(theirs)])
    pair.first.add(record(19), 1, 1, [quality(0.5)])

    assert pair.differing_by() == "quality"
    assert [(each.unit, each.first_cell, each.second_cell, each.row) for each in pair.differing("quality")] == [
        (2, 12, 22, 2),
        (1, 11, 21, 1),
    ]


def test_a_comparison_has_so_many_results_and_no_more() -> None:
    side = Side(cells=VALUES_MAX)
    with pytest.raises(ResourceExhausted):
        side.add(record(0), 0, 0, [])
