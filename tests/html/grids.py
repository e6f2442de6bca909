"""Results to draw: made of the real table of fields, the same in every run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from zlib import crc32

from plugin.cpuid import Leaf
from plugin.cpuid.fields import Field, fields_of
from qmp_client.matrix.result import Cell, Result
from qmp_client.reconcile.reconcile import count, title
from qmp_client.reconcile.verdict import Line, Verdict
from qmp_client.report.model import Choice, Environment, Report, Request
from qmp_client.report.policy import parse

POLICY = parse("forced-off,altered,unasked,critical")
_WANTED = (
    "0 1 2 4.0 4.1 4.2 4.3 5 6 7.0 7.1 7.2 a b.0 b.1 d.0 d.1 d.2 d.9 14.0 15 16 19 1a 1d.1 1e 1f.0 1f.1 21.0 "
    "80000000 80000001 80000007 80000008"
)
LEAVES = tuple(Leaf.parse(text) for text in _WANTED.split())
CAUSES = (
    "configured",
    "native",
    "fixed-0",
    "fixed-1",
    "xfam[5]",
    "module-rule: tsc",
    "qemu-dropped",
    "fixed-0, native",
)


def cell(cpu: str = "host", **axes: str) -> Cell:
    """A cell; what is not named is the usual."""
    usual = {"machine": "q35", "module": "1.5.05", "platform": "emerald-rapids", "qemu": "/opt/qemu/bin/qemu"}
    return Cell(cpu=cpu, **(usual | axes))


def line(place: str = "7.0", name: str = "avx512f", bit: int | tuple[int, int] = 16, **rest: object) -> Line:
    """A line about a bit, or about a field (high, low)."""
    high, low = bit if isinstance(bit, tuple) else (bit, bit)
    leaf = Leaf.parse(place)
    usual = {"asked": 1, "chosen": 1, "got": 0, "verdict": Verdict.FORCED_OFF, "cause": "xfam[5]", "register": "ebx"}
    return Line(
        leaf=leaf.number,
        subleaf=leaf.subleaf,
        low=low,
        high=high,
        name=name,
        **(usual | rest),  # type: ignore[arg-type]
    )


def report(own: Cell, lines: Iterable[Line], notes: Iterable[str] = ()) -> Report:
    """A report on a cell, with these lines."""
    said = list(lines)
    return Report(
        Request(own.cpu, own.smp, own.machine, "model"),
        Environment(own.qemu, "10.2.2", "simulated", own.kvm, own.module, own.platform, []),
        [],
        Choice(0x10000000, 0x602E7, []),
        1,
        count(said),
        said,
        list(notes),
    )


def result(own: Cell, *lines: Line, notes: Iterable[str] = ()) -> Result:
    """What became of a cell that has a TD."""
    return Result(own, 0.2, report(own, lines, notes), None, int(any(POLICY.fails(line) for line in lines)))


def failed(own: Cell, error: str = "QEMU exited with status 1") -> Result:
    """What became of a cell that has none."""
    return Result(own, 0.1, None, error, 4)


def small() -> list[Result]:
    """Three cells: two TDs that differ in three fields, and one failure."""
    same = [
        line(
            "0",
            "max_std_leaf",
            (31, 0),
            register="eax",
            asked=32,
            chosen=None,
            got=35,
            verdict=Verdict.ALTERED,
            cause="fixed-1",
        ),
        line("1", "xsave", 26, register="ecx", got=1, verdict=Verdict.HONOURED, cause="native", critical=True),
        line("1", "dtes64", 2, register="ecx", got=1, verdict=Verdict.HONOURED, cause="native"),
    ]
    here = [line(), line("7.0", "rtm", 11, cause="qemu-dropped")]
    there = [
        line(got=1, verdict=Verdict.HONOURED, cause="configured"),
        line("7.0", "rtm", 11, asked=0, got=1, verdict=Verdict.FORCED_ON, cause="native"),
        line("7.0", "smap", 20, register="ecx", got=1, verdict=Verdict.HONOURED, cause="native"),
    ]
    return [
        result(cell("host"), *same, *here),
        result(cell("EPYC"), *same, *there, notes=["a remark"]),
        failed(cell("EPYC", platform="granite-rapids")),
    ]


def large(models: int = 25) -> list[Result]:
    """20 cells for each model, each with the lines of a real report; what differs, differs by model and module."""
    return [
        result(own, *_lines(model, f"{module}{platform}"))
        for model in range(models)
        for platform in ("sapphire-rapids", "granite-rapids")
        for module in ("1.0", "1.0.3", "1.5.05", "1.5.34", "2.0.18")
        for machine in ("pc-q35-10.1", "pc-q35-10.2")
        for own in (cell(f"Model-{model:02}", module=module, platform=platform, machine=machine),)
    ]


@cache
def _fields() -> tuple[tuple[Leaf, Field], ...]:
    return tuple((leaf, field) for leaf in LEAVES for field in fields_of(leaf) if field.name)


@cache
def _lines(model: int, host: str) -> tuple[Line, ...]:
    lines = []
    for leaf, field in _fields():
        asked, got = _value(f"{model}", leaf, field), _value(host, leaf, field)
        if asked or got:
            lines.append(_line(leaf, field, asked, got))
    return tuple(lines)


def _value(who: str, leaf: Leaf, field: Field) -> int:
    """One in eight is of its own, the rest is the same for everybody."""
    place = f"{leaf} {field}"
    own = crc32(f"{who} {place}".encode()) % 8 == 0
    return crc32(f"{who if own else ''} {place}".encode()) >> 3 & (1 << field.width) - 1


def _line(leaf: Leaf, field: Field, asked: int, got: int) -> Line:
    verdict = Verdict.HONOURED
    if asked != got:
        verdict = Verdict.ALTERED if field.width > 1 else Verdict.FORCED_ON if got else Verdict.FORCED_OFF
    return Line(
        leaf.number,
        field.register,
        field.low,
        field.high,
        title(field),
        asked,
        None,
        got,
        verdict,
        CAUSES[crc32(f"{leaf} {field} {verdict}".encode()) % len(CAUSES)],
        leaf.subleaf,
        field.kvm_critical,
    )
