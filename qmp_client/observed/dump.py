"""A dump of a guest's CPUID: /proc/cpuinfo or its flags alone, or what the program ``cpuid`` prints with ``-r``. Pure.

Of several processors the first one counts: what sets the others apart depends on the vCPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from plugin.cpuid import Leaf, Registers

VENDOR = "GenuineIntel"
REGISTER = r"(0x[0-9a-fA-F]{8})"
LINE = re.compile(
    rf"\s*0x([0-9a-fA-F]{{8}}) 0x([0-9a-fA-F]{{2,8}}): eax={REGISTER} ebx={REGISTER} ecx={REGISTER} edx={REGISTER}\s*"
)
PROCESSOR = re.compile(r"CPU(?: \d+)?:")
FLAGS = re.compile(r"(flags\s*:)?\s*fpu( [a-z0-9_]+)+\s*")
"""The flags of /proc/cpuinfo, as they are often passed on without the rest; the first one is always this."""
LAST_LINE = "power management"
"""The line with which /proc/cpuinfo ends what it says of a processor."""


class NoDump(ValueError):
    """A text that is no dump of an Intel processor's CPUID, or not a whole one."""


class Dump(NamedTuple):
    """What a guest showed."""

    flags: frozenset[str] | None = None
    """The words of /proc/cpuinfo; None for a dump of registers."""
    said: Mapping[str, str] = {}
    """The other lines of /proc/cpuinfo."""
    cpuid: Mapping[tuple[int, int], Registers] = {}
    """Registers by leaf and sub-leaf; empty for /proc/cpuinfo."""


def read(text: str) -> Dump:
    """Read a dump of either kind. Raises NoDump, which says what is wrong."""
    lines = text.splitlines()
    if any(LINE.fullmatch(line) for line in lines):
        return _registers(lines)
    if FLAGS.fullmatch(text):
        return Dump(flags=frozenset(text.rpartition(":")[2].split()))
    if any(line.partition(":")[0].strip() == "flags" for line in lines):
        return _cpuinfo(lines)
    raise NoDump("is no /proc/cpuinfo, no line of its flags, and nothing that cpuid -r prints")


def _registers(lines: list[str]) -> Dump:
    found: dict[tuple[int, int], Registers] = {}
    processors = 0
    for number, line in enumerate(lines, 1):
        if PROCESSOR.match(line.strip()):
            processors += 1
            if processors > 1:
                break
        elif match := LINE.fullmatch(line):
            leaf, subleaf, *registers = (int(word, 16) for word in match.groups())
            found.setdefault((leaf, subleaf), Registers._make(registers))
        elif line.strip():
            raise NoDump(f"is cut off or damaged in line {number}: {line.strip()[:60]!r} is no leaf")
    first = found.get((0, 0))
    if first is None:
        raise NoDump("has no leaf 0")
    _check_vendor(b"".join(word.to_bytes(4, "little") for word in (first.ebx, first.edx, first.ecx)).decode("latin-1"))
    for base in (0x0, 0x80000000):
        last = found[base, 0].eax if (base, 0) in found else base
        if last >> 31 != base >> 31:
            continue
        if (base, 0) not in found or (last, 0) not in found:
            raise NoDump(f"is cut off: it ends before leaf {Leaf(last)}, which {Leaf(base)} announces")
    return Dump(cpuid=found)


def _cpuinfo(lines: list[str]) -> Dump:
    said: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon and said:
            break  # the blank line between two processors
        if colon:
            said[key.strip()] = value.strip()
    _check_vendor(said.get("vendor_id", VENDOR))
    if "flags" not in said or LAST_LINE not in said:
        raise NoDump(f"is cut off: what /proc/cpuinfo says of a processor ends with {LAST_LINE!r}")
    return Dump(flags=frozenset(said["flags"].split()), said=said)


def _check_vendor(vendor: str) -> None:
    if vendor != VENDOR:
        raise NoDump(f"is of a {vendor} processor; a TD is one of {VENDOR}")
