"""From evidence to verdicts. Pure: no QEMU, no files.

Every leaf that either side knows is walked field by field. Single bits are features; wider fields are compared as
values. Differences that only the moment or the vCPU's number explains are not differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from plugin.cpuid import ZERO, Bit, Cpuid, Leaf, Registers, spelled_like
from plugin.cpuid.fields import Field, fields_of
from qmp_client.reconcile.cause import Evidence, Judge
from qmp_client.reconcile.verdict import Line, Verdict


def reconcile(
    evidence: Evidence, judge: Judge, named: frozenset[str] = frozenset(), *, answers: bool = True
) -> list[Line]:
    """One line for every field that was asked for or is there, in the order of the leaves.

    ``named`` are the QEMU property names that the user wrote in ``--cpu``: their fields get a line in any case.
    ``answers`` says whether KVM has leaves from QEMU to answer with when the guest's CPUID raises #VE.
    """
    evidence = _aligned(evidence)
    readable = spelled_like(judge.readable(), evidence.actual)
    lines: list[Line] = []
    every = evidence.requested.keys() | evidence.actual.keys() | readable.keys()
    for leaf in sorted(every, key=lambda leaf: leaf.order):
        if leaf in evidence.actual:
            lines.extend(_fields(leaf, evidence, judge, named))
        elif leaf in readable:
            lines.extend(_unread(leaf, readable[leaf], evidence, named))
        else:
            lines.extend(_by_hypercall(leaf, evidence.requested[leaf], named, answers=answers))
    return lines


def differing(first: Cpuid, other: Cpuid, vcpu: int) -> list[Line]:
    """What one vCPU has that vCPU 0 has not, or the reverse."""
    lines = []
    for leaf in sorted(first.keys() | other.keys(), key=lambda leaf: leaf.order):
        if first.get(leaf) == other.get(leaf):
            continue
        for field in fields_of(leaf):
            expected, got = _value(first, leaf, field), _value(other, leaf, field)
            if expected != got and not field.dynamic:
                verdict = Verdict.UNREADABLE if got is None else Verdict.ALTERED
                lines.append(
                    _line(
                        leaf,
                        field,
                        asked=expected,
                        chosen=None,
                        got=got,
                        verdict=verdict,
                        cause="vcpu-differs",
                        vcpu=vcpu,
                    )
                )
    return lines


def count(lines: Iterable[Line]) -> dict[str, int]:
    """The summary: how many fields were asked for, and how many ended up under each verdict."""
    counts = {"asked": 0} | {verdict.value: 0 for verdict in Verdict}
    for line in lines:
        counts["asked"] += bool(line.asked) and line.verdict is not Verdict.BY_HYPERCALL
        if line.asked or line.got:
            counts[line.verdict] += 1
    return counts


def _fields(leaf: Leaf, evidence: Evidence, judge: Judge, named: frozenset[str]) -> Iterator[Line]:
    waits_for = judge.ve_until(leaf)
    touched = _requested(evidence, leaf) | evidence.actual[leaf]
    for field in fields_of(leaf, touched):
        by_name = field.qemu_name in named
        if not touched.get(field.register) & field.mask and not by_name:
            continue
        asked = _asked(evidence, leaf, field)
        got = field.extract(evidence.actual[leaf])
        verdict = Verdict.BY_HYPERCALL if waits_for else _verdict(field, asked, got)
        yield _line(
            leaf,
            field,
            asked=asked,
            chosen=_chosen(evidence, leaf, field),
            got=got,
            verdict=verdict,
            cause=f"#VE until the guest sets TD_CTLS.{waits_for}"
            if waits_for
            else _cause(leaf, field, (asked or 0) ^ got, judge, evidence),
            named=by_name,
        )


def _line(
    leaf: Leaf,
    field: Field,
    *,
    asked: int | None,
    chosen: int | None,
    got: int | None,
    verdict: Verdict,
    cause: str,
    named: bool = False,
    vcpu: int | None = None,
) -> Line:
    return Line(
        leaf=leaf.number,
        subleaf=leaf.subleaf,
        register=field.register,
        low=field.low,
        high=field.high,
        name=title(field),
        asked=asked,
        chosen=chosen,
        got=got,
        verdict=verdict,
        cause=cause,
        critical=field.kvm_critical,
        named=named,
        vcpu=vcpu,
    )


def title(field: Field) -> str:
    """What a feature or field is called: as QEMU's -cpu calls it where it does, else as in the table of fields."""
    if not field.name:
        return "(no name)"
    return field.qemu_name if field.qemu_name and field.width == 1 else field.name


def _verdict(field: Field, asked: int | None, got: int) -> Verdict:
    if field.dynamic:
        return Verdict.DYNAMIC
    if (asked or 0) == got:
        return Verdict.HONOURED
    if asked is None or (not asked and not field.qemu_name and field.width == 1):
        return Verdict.UNASKED
    if field.width > 1:
        return Verdict.ALTERED
    return Verdict.FORCED_ON if got else Verdict.FORCED_OFF


def _unread(leaf: Leaf, there: Registers, evidence: Evidence, named: frozenset[str]) -> Iterator[Line]:
    """A leaf that the TD has and KVM did not return."""
    for field in fields_of(leaf, _requested(evidence, leaf) | there):
        by_name = field.qemu_name in named
        asked = _asked(evidence, leaf, field)
        if asked or field.extract(there) or by_name:
            yield _line(
                leaf,
                field,
                asked=asked,
                chosen=None,
                got=None,
                verdict=Verdict.UNREADABLE,
                cause="KVM did not return the leaf",
                named=by_name,
            )


def _by_hypercall(leaf: Leaf, requested: Registers, named: frozenset[str], *, answers: bool) -> Iterator[Line]:
    for field in fields_of(leaf, requested):
        asked = field.extract(requested)
        by_name = field.qemu_name in named
        if asked or by_name:
            yield _line(
                leaf,
                field,
                asked=asked,
                chosen=None,
                got=None,
                verdict=Verdict.BY_HYPERCALL,
                cause="#VE: the VMM answers" if answers else "#VE: KVM has no answer, the guest gets 0",
                named=by_name,
            )


def _cause(leaf: Leaf, field: Field, differing_bits: int, judge: Judge, evidence: Evidence) -> str:
    """The causes of the bits that differ, or of the whole field when none does; each said once."""
    positions: Sequence[int] = range(field.low, field.high + 1)
    if differing_bits:
        positions = [p for p in positions if differing_bits >> (p - field.low) & 1]
    causes = dict.fromkeys(judge.cause(Bit(leaf, field.register, p), evidence) for p in positions)
    return ", ".join(causes)


def _requested(evidence: Evidence, leaf: Leaf) -> Registers:
    """What the model asked for, whether or not QEMU passed it on."""
    return evidence.requested.get(leaf, ZERO) | evidence.dropped.get(leaf, ZERO)


def _asked(evidence: Evidence, leaf: Leaf, field: Field) -> int | None:
    """The field of that; None when the model has no such leaf."""
    built, dropped = _value(evidence.requested, leaf, field), _value(evidence.dropped, leaf, field)
    return None if built is None and dropped is None else (built or 0) | (dropped or 0)


def _chosen(evidence: Evidence, leaf: Leaf, field: Field) -> int | None:
    return _value(evidence.chosen, leaf, field) if _value(evidence.configurable, leaf, field) else None


def _value(cpuid: Cpuid, leaf: Leaf, field: Field) -> int | None:
    registers = cpuid.get(leaf)
    return None if registers is None else field.extract(registers)


def _aligned(evidence: Evidence) -> Evidence:
    """Give every table the TD's own spelling of the leaves."""
    return Evidence(*(spelled_like(cpuid, evidence.actual) for cpuid in evidence))
