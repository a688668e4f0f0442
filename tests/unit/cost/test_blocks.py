"""Blocks keep and add up what is put into them."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.cost.blocks import (
    SEPARATOR,
    Block,
    Coded,
    PackedBlock,
    block_of,
    coded,
    codes_of,
    merged,
    packed_names,
    packed_sums,
    parts_of_columns,
    unpacked_names,
)
from services.cost.rollups import VIEWS

rows = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "aa", "b", "é"]),
        st.sampled_from(["", "x", "y"]),
        st.sampled_from([0, 1, 255, 256, 70_000, 1 << 32, -5, 1 << 60]),
    ),
    min_size=1,
    max_size=20,
)
Rows = list[tuple[str, str, int]]


def block(of: Rows) -> Block:
    sums = np.array([[amount for *_, amount in of], [1] * len(of), [0] * len(of)], np.int64)
    return block_of([coded([one for one, *_ in of]), coded([other for _, other, _ in of])], sums)


def figures(of: Block) -> dict[tuple[str, str], tuple[int, int]]:
    first, second = of.codes()
    keys = [(of.names[0][one], of.names[1][other]) for one, other in zip(first, second, strict=True)]
    assert keys == sorted(keys), "groups are in order"
    return dict(zip(keys, zip(of.sums[0].tolist(), of.sums[1].tolist(), strict=True), strict=True))


def scan(of: Rows) -> dict[tuple[str, str], tuple[int, int]]:
    amounts: Counter[tuple[str, str]] = Counter()
    for one, other, amount in of:
        amounts[one, other] += amount
    return {key: (amount, sum(key == (one, other) for one, other, _ in of)) for key, amount in amounts.items()}


@given(rows)
def test_a_block_is_unpacked_as_it_was_packed(of: Rows) -> None:
    packed = block(of)
    reader = PackedBlock(packed_sums(packed))
    found = reader.whole(unpacked_names(packed_names(packed)))
    assert figures(found) == figures(packed) == scan(of)
    one = reader.sums(1)
    assert one is not None
    assert (one.tolist(), reader.sums(2)) == (packed.sums[1].tolist(), None)


def test_few_groups_of_many_values_keep_their_codes() -> None:
    one, other = coded(["a"]), coded([f"{number:03}" for number in range(300)])
    kept = block_of(
        [Coded(one.names, np.zeros(2, np.int64)), Coded(other.names, np.array([3, 7]))], np.ones((1, 2), np.int64)
    )
    reader = PackedBlock(packed_sums(kept))
    assert [codes.tolist() for codes in codes_of(reader.groups(), kept.names)] == [[0, 0], [3, 7]]


@given(st.lists(rows, min_size=1, max_size=4))
def test_merged_blocks_are_a_block_of_all_rows(of: list[Rows]) -> None:
    assert figures(merged([block(piece) for piece in of])) == scan([row for piece in of for row in piece])


def test_a_model_stays_with_its_provider() -> None:
    parts = {view.name: parts_of_columns(view.columns) for view in VIEWS}
    assert parts["by_user_model"] == (("provider", "model"), ("user_id",))
    assert parts["by_key_model"] == (("key_id",), ("provider", "model"))
    assert parts["by_user_provider"] == (("provider",), ("user_id",))


def test_joined_names_are_in_the_order_of_their_columns() -> None:
    keys = [("a", "z"), ("a!", "a"), ("a", ""), ("a", "a b")]
    assert [tuple(name.split(SEPARATOR)) for name in sorted(map(SEPARATOR.join, keys))] == sorted(keys)
