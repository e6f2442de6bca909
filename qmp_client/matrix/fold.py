"""Saying many combinations in few rows: cells that differ on one axis only become one block. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[str, ...]
"""One combination: a value for each axis."""
Block: TypeAlias = tuple[tuple[str, ...], ...]
"""Values for each axis; it stands for every combination of them."""


def fold(points: Iterable[Point]) -> list[Block]:
    """Cover the points with blocks: every point is in exactly one block, and no block has another point.

    The last axis is folded first. Values and blocks keep the order in which they come first.
    """
    different = list(dict.fromkeys(points))
    ranks = [{value: rank for rank, value in enumerate(dict.fromkeys(axis))} for axis in zip(*different, strict=True)]
    blocks: list[Block] = [tuple((value,) for value in point) for point in different]
    for axis, rank in reversed(list(enumerate(ranks))):
        merged: dict[Block, list[str]] = {}
        for block in blocks:
            rest = (*block[:axis], (), *block[axis + 1 :])
            merged.setdefault(rest, []).extend(block[axis])
        blocks = [
            (*rest[:axis], tuple(sorted(values, key=rank.__getitem__)), *rest[axis + 1 :])
            for rest, values in merged.items()
        ]
    return blocks


def say(values: Sequence[str], among: int, most: int = 4) -> str:
    """Write the values of one axis; ``among`` is how many that axis has in all."""
    if len(values) > most and len(values) == among:
        return f"all {among}"
    if len(values) > most + 1:
        return ", ".join([*values[:most], f"{len(values) - most} more"])
    return ", ".join(values)
