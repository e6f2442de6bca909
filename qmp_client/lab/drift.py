"""Whether guests see another CPUID than before, and which update is the likely reason. Pure."""

from __future__ import annotations

from qmp_client.lab.wire import Change, Result, Versions
from qmp_client.reconcile.verdict import Line, Verdict
from qmp_client.report.model import Report

LIKELY_FIRST = ("module", "platform", "microcode", "kernel", "qemu", "firmware")
"""How directly each decides a bit: the module and the processor have the last word, firmware hardly a say."""
NAMES = {"module": "TDX module", "qemu": "QEMU"}
NOT_SIMULATED = ("microcode", "kernel")
"""What a simulated TD does not depend on."""

Place = tuple[int, int, str, int, int]


def changes(before: Report, now: Report) -> tuple[Change, ...]:
    """The fields in which the guest's CPUID differs, in the order of their leaves; a field that is not there is 0.

    Left out are those that depend on the moment.
    """
    old, new = _fields(before), _fields(now)
    return tuple(
        Change(
            field=(new.get(place) or old[place]).where,
            name=(new.get(place) or old[place]).name,
            before=_value(old.get(place)),
            now=_value(new.get(place)),
        )
        for place in sorted(old.keys() | new.keys())
        if _value(old.get(place)) != _value(new.get(place))
    )


def moved(before: Versions, now: Versions, *, simulated: bool) -> tuple[str, ...]:
    """Which versions are not what they were, the likeliest reason first; ``TDX module 1.5.01 -> 1.5.05``."""
    return tuple(
        f"{NAMES.get(what, what)} {getattr(before, what) or 'unknown'} -> {getattr(now, what) or 'unknown'}"
        for what in LIKELY_FIRST
        if getattr(before, what) != getattr(now, what) and not (simulated and what in NOT_SIMULATED)
    )


def likely(what_moved: tuple[str, ...]) -> str:
    """The likely reason, in a sentence."""
    if not what_moved:
        return "no version that is known here moved; BIOS settings and module parameters of KVM are not watched"
    rest = f"; moved as well: {', '.join(what_moved[1:])}" if len(what_moved) > 1 else ""
    return f"{what_moved[0]}{rest}"


def compare(before: Result | None, now: Result) -> tuple[Change, ...]:
    """The changes between two measurements; none where one of them has no report."""
    if before is None or before.report is None or now.report is None:
        return ()
    return changes(before.report, now.report)


def _fields(report: Report) -> dict[Place, Line]:
    """Each field of the first vCPU, by its place."""
    return {
        (line.leaf, -1 if line.subleaf is None else line.subleaf, line.register, line.low, line.high): line
        for line in report.lines
        if line.vcpu is None and line.verdict is not Verdict.DYNAMIC
    }


def _value(line: Line | None) -> int:
    """What the guest sees, as far as the report tells."""
    return ((line.got if line.guest is None else line.guest) or 0) if line is not None else 0
