"""What Linux calls CPUID bits: the words of ``flags`` in /proc/cpuinfo, and what each says about CPUID.

The table is ``data/linux_flags.csv`` (see ``data/README.md``), read on first use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from plugin.cpuid.leaf import REGISTERS, Bit, Leaf
from plugin.typing import NamedTuple

_TABLE = os.path.join(os.path.dirname(__file__), "data", "linux_flags.csv")

EXACT, ONE_WAY, CLEARED, HIDDEN, SYNTHETIC = "bit", "once", "cleared", "hidden", "synthetic"


class Flag(NamedTuple):
    """One word of ``flags``."""

    name: str
    bit: Bit | None
    """What it is about; for a synthetic one, what it goes by, if that is CPUID."""
    evidence: str
    """``bit``: there exactly when CPUID has the bit; ``once``: only where CPUID has it, and the kernel may still leave
    it out; ``cleared``: Linux clears it in every TD; ``hidden``: not printed; ``synthetic``: no evidence of the bit."""
    note: str
    """Why it is no more than that."""


@lru_cache(maxsize=1)
def linux_flags() -> Mapping[str, Flag]:
    """Return the whole table by name."""
    with open(_TABLE, encoding="ascii") as file:
        lines = file.read().splitlines()
    return {flag.name: flag for flag in map(_flag, lines[1:])}


def _flag(line: str) -> Flag:
    # The note comes last and may contain commas.
    name, leaf, subleaf, register, position, evidence, note = line.split(",", 6)
    bit = None
    if leaf:
        place = Leaf(int(leaf, 16), int(subleaf) if subleaf else None)
        bit = Bit(place, REGISTERS[REGISTERS.index(register)], int(position))
    return Flag(name, bit, evidence, note)


@lru_cache(maxsize=1)
def _by_bit() -> Mapping[Bit, tuple[Flag, ...]]:
    found: dict[Bit, list[Flag]] = {}
    for flag in linux_flags().values():
        if flag.bit is not None:
            found.setdefault(flag.bit, []).append(flag)
    return {bit: tuple(flags) for bit, flags in found.items()}


def flags_of(bit: Bit) -> tuple[Flag, ...]:
    """Return the words that are about a bit."""
    return _by_bit().get(bit, ())
