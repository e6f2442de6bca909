"""Folding: nothing is lost, nothing is made up, and a whole grid is one block."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_client.matrix.fold import Block, fold, say

POINTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from("12")))


def spread(blocks: list[Block]) -> list[tuple[str, ...]]:
    return [point for block in blocks for point in product(*block)]


@settings(deadline=None)
@given(POINTS)
def test_blocks_have_every_point_once_and_no_other(points: list[tuple[str, ...]]) -> None:
    assert sorted(spread(fold(points))) == sorted(set(points))


@settings(deadline=None)
@given(st.permutations(list(product("abc", "xy", "12"))))
def test_a_whole_grid_is_one_block_in_whatever_order(points: list[tuple[str, ...]]) -> None:
    blocks = fold(points)
    assert [sorted(values) for values in blocks[0]] == [["a", "b", "c"], ["x", "y"], ["1", "2"]]
    assert len(blocks) == 1


def test_the_machine_types_of_one_model_become_one_row() -> None:
    points = [("host", "pc-q35-10.1"), ("host", "q35"), ("max", "q35")]
    assert fold(points) == [(("host",), ("pc-q35-10.1", "q35")), (("max",), ("q35",))]


def test_long_lists_are_said_shortly() -> None:
    names = [f"m{n}" for n in range(9)]
    assert say(names, among=9) == "all 9"
    assert say(names, among=20) == "m0, m1, m2, m3, 5 more"
    assert say(names[:5], among=20) == "m0, m1, m2, m3, m4", "'1 more' is longer than the name"
    assert say(names[:2], among=2) == "m0, m1"
