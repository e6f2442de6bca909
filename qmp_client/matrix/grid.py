"""Which cells a grid has: values, ``all`` and patterns for each axis, and what they come to for each QEMU. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import NamedTuple

from qmp_client.errors import UsageError, nearest
from qmp_client.matrix.result import Cell

ALL = "all"
EXCEPT = "!"


class Grid(NamedTuple):
    """What the user wants to see: words for each axis, each of them a value, ``all`` or a pattern."""

    cpu: tuple[str, ...]
    machine: tuple[str, ...]
    module: tuple[str, ...]
    platform: tuple[str, ...]
    smp: tuple[str, ...]
    kvm: tuple[str, ...]


class Offer(NamedTuple):
    """What there is to choose from, for ``all`` and patterns. ``cpu`` and ``machine`` are one QEMU's."""

    cpu: Sequence[str]
    machine: Sequence[str]
    module: Sequence[str]
    """Every module version; ``all`` takes only those of ``published``."""
    published: Sequence[str]
    platform: Sequence[str]
    kvm: Sequence[str]


def is_pattern(word: str) -> bool:
    """Whether a word stands for several values: ``all``, or one with ``*``, ``?``, ``[`` or a leading ``!``."""
    model = word.partition(",")[0]
    return model == ALL or word.startswith(EXCEPT) or any(mark in model for mark in "*?[")


def cells(grid: Grid, qemu: str, offer: Offer) -> list[Cell]:
    """The grid's cells for one QEMU, each once, machine types next to each other.

    Raises UsageError when a pattern matches nothing, and for a word that is no UTF-8.
    """
    for word in (qemu, *(word for words in grid for word in words)):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r} is not text in UTF-8, which a file of results is", hint="rename it") from None
    axes = (
        choose("kvm", grid.kvm, offer.kvm),
        choose("module", grid.module, offer.module, everything=offer.published),
        choose("platform", grid.platform, offer.platform),
        list(dict.fromkeys(grid.smp)),
        choose("cpu", grid.cpu, offer.cpu),
        choose("machine", grid.machine, offer.machine),
    )
    return [
        Cell(cpu=cpu, machine=machine, module=module, platform=platform, qemu=qemu, smp=smp, kvm=kvm)
        for kvm, module, platform, smp, cpu, machine in product(*axes)
    ]


def choose(axis: str, words: Iterable[str], offered: Sequence[str], everything: Sequence[str] = ()) -> list[str]:
    """The values that the words of one axis stand for, each once, in the order of the words.

    A pattern matches the model in ``-cpu``, and the features behind it stay: ``Sapphire*,-avx512f``. ``!PATTERN`` takes
    out what the words before it brought in. A word that is no pattern is taken as it is: QEMU decides about it.
    """
    chosen: dict[str, None] = {}
    for word in words:
        model, comma, features = word.partition(",")
        if word.startswith(EXCEPT):
            chosen = {value: None for value in chosen if not fnmatchcase(value, word[len(EXCEPT) :])}
            continue
        found = [word]
        if is_pattern(word):
            source = (everything or offered) if model == ALL else offered
            found = [f"{name}{comma}{features}" for name in source if model == ALL or fnmatchcase(name, model)]
            if not found:
                raise UsageError(f"--{axis} {word} matches nothing", hint=nearest(model.strip("*?"), offered))
        chosen |= dict.fromkeys(found)
    if not chosen:
        raise UsageError(f"--{axis} {' '.join(words)}: nothing is left")
    return list(chosen)


def varying(all_cells: Sequence[Cell]) -> list[str]:
    """The axes on which the cells differ, the most telling first; model and machine type always."""
    telling = ("cpu", "machine", "smp", "module", "platform", "kvm", "qemu")
    return [
        axis for axis in telling if axis in ("cpu", "machine") or len({getattr(cell, axis) for cell in all_cells}) > 1
    ]
