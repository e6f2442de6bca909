"""The baseline's file: text that reads well in a diff. Pure. ``docs/how-to/baselines.md`` describes the format.

Machine types are folded into one line where they agree, and a TD is written as its difference from the first TD of its
model's family. Which TD that is depends on names only: if contents decided, one changed bit could move a whole section.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from plugin.tdx_module.guests import TD
from qmp_client.baseline.guest import ATTRIBUTES, XFAM, Guest, Seen, Td, difference, explain, order, parse
from qmp_client.baseline.machine_type import age
from qmp_client.errors import UsageError

TITLE = "# tdx-cpuid baseline, format 1: the CPUID that TDX guests see. Written by `tdx-cpuid baseline save`."
VE = "#VE"
NOTHING = Seen(0)
MODEL_VERSION = re.compile(r"-v\d+$")
LINE = re.compile(rf"  (?P<place>\S+)\s+(?P<value>[0-9a-f]+)(?P<ve>  {VE})?(?P<machines>(?:  ?@\S+)*)(?:  .*)?")


class Baseline(NamedTuple):
    """Everything that the file has."""

    qemu_version: str
    """The QEMU that it was saved with."""
    choose: str
    tds: Mapping[Td, Mapping[str, Guest]]
    """For each TD, the guest on each machine type."""
    guest: str = TD.name
    """Who executes CPUID in them, as ``--guest`` has it."""


def render(baseline: Baseline) -> str:
    """The file's text: the same for the same guests, in whatever order they come."""
    lines = [TITLE, f"qemu {baseline.qemu_version}", f"choose {baseline.choose}", f"guest {baseline.guest}"]
    heads: dict[object, Td] = {}
    for td in sorted(baseline.tds):
        guests = baseline.tds[td]
        head = heads.setdefault((_family(td.cpu), frozenset(guests)), td)
        lines += ["", f"td {_words(td._asdict())}"]
        if head is td:
            lines.append(f"machines {' '.join(sorted(guests, key=age))}")
            lines += _registers(guests, None)
        else:
            different = {axis: value for axis, value in head._asdict().items() if value != getattr(td, axis)}
            lines.append(f"like {_words(different)}")
            lines += _registers(guests, baseline.tds[head])
    return "\n".join(lines) + "\n"


def _family(cpu: str) -> str:
    """The model without its version and features."""
    return MODEL_VERSION.sub("", cpu.partition(",")[0])


def _words(axes: Mapping[str, str]) -> str:
    return " ".join(shlex.quote(f"{axis}={value}") for axis, value in axes.items())


def _registers(guests: Mapping[str, Guest], head: Mapping[str, Guest] | None) -> Iterator[str]:
    """A line for each value of each register that is not as in the head; without one, that is not 0."""
    machines = sorted(guests, key=age)
    tables = [*guests.values(), *(head or {}).values()]
    for place in sorted({place for guest in tables for place in guest}, key=order):
        values: dict[Seen, list[str]] = {}
        for machine in machines:
            seen = guests[machine].get(place, NOTHING)
            if seen != (head[machine].get(place, NOTHING) if head else NOTHING):
                values.setdefault(seen, []).append(machine)
        for seen, having in values.items():
            before = head[having[0]].get(place, NOTHING).value if head else None
            yield _line(place, seen, having if len(having) < len(machines) else [], before)


def _line(place: str, seen: Seen, machines: Sequence[str], before: int | None) -> str:
    digits = 16 if place in (ATTRIBUTES, XFAM) else 8
    words = [f"  {place:<15}", f"{seen.value:0{digits}x}", VE if seen.by_hypercall else ""]
    words += [" ".join(f"@{machine}" for machine in machines)]
    words += [explain(place, seen.value) if before is None else difference(place, before, seen.value)]
    return "  ".join(word for word in words if word)


def read(text: str, name: str) -> Baseline:
    """Read what ``render`` wrote; what stands behind a value is for people. Raises UsageError that names the line."""
    lines = text.splitlines()
    if not lines or lines[0] != TITLE:
        raise UsageError(f"{name} is not a baseline of this version", hint="tdx-cpuid baseline save writes one")
    reader = _Reader()
    for number, line in enumerate([*lines[1:], ""], 2):
        try:
            reader.take(line)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{name}, line {number}: {error}", hint="tdx-cpuid baseline save writes it anew"
            ) from error
    if not reader.tds:
        raise UsageError(f"{name} has no TD in it", hint="tdx-cpuid baseline save writes it anew")
    return Baseline(
        reader.head.get("qemu", ""), reader.head.get("choose", ""), reader.tds, reader.head.get("guest", TD.name)
    )


class _Reader:
    """Takes one line after another."""

    def __init__(self) -> None:
        self.head: dict[str, str] = {}
        self.tds: dict[Td, Mapping[str, Guest]] = {}
        self._td: Td | None = None
        self._guests: dict[str, dict[str, Seen]] = {}
        self._own: set[tuple[str, str]] = set()
        """Which registers of which machine types the section has said itself."""

    def take(self, line: str) -> None:
        """Read a line. Raises ValueError that says what is wrong with it."""
        word, _, rest = line.partition(" ")
        if not line:
            if self._td is not None and not self._guests:
                raise ValueError(f"the section of {self._td} has neither machines nor like")
            self._td, self._guests = None, {}
        elif line.startswith("  "):
            self._register(line)
        elif word == "td" and self._td is None:
            self._td = Td(**_axes(rest))
        elif word in ("machines", "like") and self._td is not None and not self._guests:
            self._begin(self._td, rest, copy=word == "like")
        elif word in ("qemu", "choose", "guest") and not self.tds:
            self.head[word] = rest
        else:
            raise ValueError(f"{line[:40]!r} is not what belongs here; a section has td, machines or like, registers")

    def _begin(self, td: Td, rest: str, *, copy: bool) -> None:
        if td in self.tds:
            raise ValueError(f"{td} is there twice")
        if copy:
            head = td._replace(**_axes(rest))
            if head not in self.tds:
                raise ValueError(f"there is no {head} above")
            self._guests = {machine: dict(guest) for machine, guest in self.tds[head].items()}
        else:
            self._guests = {machine: {} for machine in rest.split()}
        self._own = set()
        self.tds[td] = self._guests

    def _register(self, line: str) -> None:
        match = LINE.fullmatch(line)
        if match is None or not self._guests:
            raise ValueError(f"{line.strip()[:40]!r} is no register, or stands before machines")
        parse(match["place"])
        place, value = match["place"], int(match["value"], 16)
        for machine in [word[1:] for word in match["machines"].split()] or list(self._guests):
            if machine not in self._guests:
                raise ValueError(f"@{machine} is not among the machines of the section")
            if (place, machine) in self._own:
                raise ValueError(f"{place} is there twice for {machine}")
            self._own.add((place, machine))
            self._guests[machine].pop(place, None)
            if value:
                self._guests[machine][place] = Seen(value, match["ve"] is not None)


def _axes(text: str) -> dict[str, str]:
    axes = dict[str, str]()
    for word in shlex.split(text):
        axis, equals, value = word.partition("=")
        if not equals or axis not in Td._fields:
            raise ValueError(f"{word!r} is none of {', '.join(Td._fields)} with a value")
        axes[axis] = value
    return axes
