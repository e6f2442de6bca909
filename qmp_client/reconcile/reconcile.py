"""From evidence to verdicts. Pure: no QEMU, no files.

Every leaf that either side knows is walked field by field. Single bits are features; wider fields are compared as
values. Differences that only the moment or the vCPU's number explains are not differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from plugin.cpuid import ZERO, Bit, Cpuid, Leaf, Registers, spelled_like
from plugin.cpuid.fields import Field, fields_of
from plugin.tdx_module.guests import VMM, ZEROS
from qmp_client.reconcile.cause import Evidence, Judge
from qmp_client.reconcile.classes import Case, Deviation, classify
from qmp_client.reconcile.mend import AT_FAULT, mend
from qmp_client.reconcile.verdict import NOT_THE_TDS, Kind, Line, Verdict
from qmp_client.reconcile.view import Sight
from qmp_client.reconcile.words import NOTHING_SAID, Word, Words

Look: TypeAlias = Callable[[Leaf], Sight]
"""What a guest finds in a leaf, as ``View.of``."""


def reconcile(
    evidence: Evidence,
    judge: Judge,
    words: Words = NOTHING_SAID,
    *,
    look: Look | None = None,
    answers: bool = True,
) -> list[Line]:
    """One line for every field that was asked for or is there, in the order of the leaves.

    ``words`` are what the user said by name: the fields that ``-cpu`` names get a line in any case. ``look`` is what
    the guest finds in a leaf; without it, what the TD holds. ``answers`` says whether KVM has leaves from QEMU to
    answer with when the guest's CPUID raises #VE.
    """
    evidence = _aligned(evidence)
    case = Case(evidence, judge, words)
    look = look or partial(_held, evidence.actual)
    readable = spelled_like(judge.readable(), evidence.actual)
    lines: list[Line] = []
    every = evidence.requested.keys() | evidence.actual.keys() | readable.keys()
    for leaf in sorted(every, key=lambda leaf: leaf.order):
        if leaf in evidence.actual:
            lines.extend(_fields(leaf, look(leaf), case, answers=answers))
        elif leaf in readable:
            lines.extend(_unread(leaf, readable[leaf], case))
        else:
            lines.extend(_not_held(leaf, look(leaf), case, answers=answers))
    return lines


def _held(actual: Cpuid, leaf: Leaf) -> Sight:
    """What is seen of a TD without a guest: a leaf that it does not hold is the VMM's to answer."""
    return Sight(actual[leaf]) if leaf in actual else Sight(None, VMM)


def differing(first: Cpuid, other: Cpuid, vcpu: int) -> list[Line]:
    """What one vCPU has that vCPU 0 has not, or the reverse."""
    lines = []
    for leaf in sorted(first.keys() | other.keys(), key=lambda leaf: leaf.order):
        if first.get(leaf) == other.get(leaf):
            continue
        for field in fields_of(leaf):
            expected, got = _value(first, leaf, field), _value(other, leaf, field)
            if expected != got and not field.dynamic:
                line = _line(
                    leaf,
                    field,
                    asked=expected,
                    chosen=None,
                    got=got,
                    verdict=Verdict.UNREADABLE if got is None else _difference(field, got),
                    cause="vcpu-differs",
                )
                lines.append(replace(line, vcpu=vcpu, kind=Kind.VCPUS_DIFFER, mend=AT_FAULT))
    return lines


def count(lines: Iterable[Line]) -> dict[str, int]:
    """The summary: how many fields were asked for, and how many ended up under each verdict."""
    counts = {"asked": 0} | {verdict.value: 0 for verdict in Verdict}
    for line in lines:
        counts["asked"] += bool(line.asked) and line.verdict not in NOT_THE_TDS
        if line.asked or line.got or line.guest:
            counts[line.verdict] += 1
    return counts


def _fields(leaf: Leaf, sight: Sight, case: Case, *, answers: bool) -> Iterator[Line]:
    evidence, _, words = case
    touched = _requested(evidence, leaf) | evidence.actual[leaf] | (sight.registers or ZERO)
    for field in fields_of(leaf, touched):
        word = words.about(leaf, field)
        got = field.extract(evidence.actual[leaf])
        seen = None if sight.registers is None else field.extract(sight.registers)
        by_name = word is not None and word.of_cpu
        broken = word is not None and not sight.ve and not word.kept(field, got if seen is None else seen)
        if not touched.get(field.register) & field.mask and not by_name and not broken:
            continue
        asked = _asked(evidence, leaf, field)
        if asked is None and by_name:
            asked = 0  # QEMU leaves out a leaf of zeros, and this bit was spoken of
        line = _line(
            leaf,
            field,
            asked=asked,
            chosen=_chosen(evidence, leaf, field),
            got=got,
            guest=seen,
            verdict=_of_ve(sight),
            cause=sight.said_of_ve(answers=answers),
            named=by_name,
        )
        if not sight.ve and seen is not None:
            wanted = word.wants(field, asked or 0) if word is not None and broken else asked
            line = _judged(line, Found(leaf, field, wanted, got, seen), sight, word, case)
        yield line


def _of_ve(sight: Sight) -> Verdict:
    return Verdict.ZEROED if sight.ve == ZEROS else Verdict.BY_HYPERCALL


class Found(NamedTuple):
    """One field: what was wanted, what the TD holds (None: nothing), and what the guest sees."""

    leaf: Leaf
    field: Field
    wanted: int | None
    got: int | None
    seen: int


def _judged(line: Line, found: Found, sight: Sight, word: Word | None, case: Case) -> Line:
    """Say what became of a field that the module answers for: verdict and cause, class and mend."""
    leaf, field, wanted, got, seen = found
    differing = (wanted or 0) ^ seen
    hidden = seen ^ (got or 0) if got is not None else (1 << field.width) - 1
    causes = []
    if got is not None and (differing & ~hidden or not hidden):
        causes.append(_cause(leaf, field, differing & ~hidden, case))
    by_guest = sight.causes(field, hidden)
    line = replace(line, verdict=_verdict(field, wanted, seen), cause=", ".join(dict.fromkeys([*causes, *by_guest])))
    missing = [_to_set(cause) for cause in sight.causes(field, hidden & differing)]
    deviation = Deviation(leaf, field, wanted or 0, seen, line.cause, word, " and ".join(filter(None, missing)))
    return _classed(line, deviation, case)


def _to_set(cause: str) -> str:
    """What a guest would set to see what the TD holds; for TD_CTLS, what it would not set."""
    kind, _, name = cause.partition(".")
    return f"FEATURE_PARAVIRT_CTRL.{name}" if kind == "paravirt" else f"TD_CTLS.{name} otherwise"


def _classed(line: Line, deviation: Deviation, case: Case) -> Line:
    """Give a deviation its class and its mend."""
    if not line.deviates:
        return line
    kind = classify(deviation, case)
    feature = bool(deviation.wanted and deviation.field.qemu_name) and deviation.field.width == 1
    enforced = case.words.enforce and feature and kind is Kind.LOST
    return replace(line, kind=kind, enforced=enforced, mend=mend(kind, deviation, case))


def _line(
    leaf: Leaf,
    field: Field,
    *,
    asked: int | None,
    chosen: int | None,
    got: int | None,
    verdict: Verdict,
    cause: str,
    guest: int | None = None,
    named: bool = False,
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
        guest=guest,
        verdict=verdict,
        cause=cause,
        critical=field.kvm_critical,
        named=named,
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
    if field.width == 1 and (asked or field.qemu_name):
        return _difference(field, got)
    return Verdict.UNASKED if asked is None or field.width == 1 else Verdict.ALTERED


def _difference(field: Field, got: int) -> Verdict:
    """What is not as it was to be: a feature, or the value of a field of several bits."""
    if field.width > 1:
        return Verdict.ALTERED
    return Verdict.FORCED_ON if got else Verdict.FORCED_OFF


def _unread(leaf: Leaf, there: Registers, case: Case) -> Iterator[Line]:
    """A leaf that the TD has and KVM did not return."""
    evidence, _, words = case
    for field in fields_of(leaf, _requested(evidence, leaf) | there):
        word = words.about(leaf, field)
        by_name = word is not None and word.of_cpu
        asked = _asked(evidence, leaf, field)
        if asked or field.extract(there) or by_name:
            line = _line(
                leaf,
                field,
                asked=asked,
                chosen=None,
                got=None,
                verdict=Verdict.UNREADABLE,
                cause="KVM did not return the leaf",
                named=by_name,
            )
            yield _classed(line, Deviation(leaf, field, asked or 0, None, line.cause, word), case)


def _not_held(leaf: Leaf, sight: Sight, case: Case, *, answers: bool) -> Iterator[Line]:
    """A leaf of which the TD has no value: there is a #VE, or the module answers a guest that wants none."""
    evidence, _, words = case
    requested = evidence.requested[leaf]
    for field in fields_of(leaf, requested | (sight.registers or ZERO)):
        asked = field.extract(requested)
        seen = None if sight.registers is None else field.extract(sight.registers)
        word = words.about(leaf, field)
        by_name = word is not None and word.of_cpu
        if asked or by_name or (seen and not sight.ve):
            line = _line(
                leaf,
                field,
                asked=asked,
                chosen=None,
                got=None,
                guest=seen,
                verdict=_of_ve(sight),
                cause=sight.said_of_ve(answers=answers),
                named=by_name,
            )
            if not sight.ve and seen is not None:
                line = _judged(line, Found(leaf, field, asked, None, seen), sight, word, case)
            yield line


def _cause(leaf: Leaf, field: Field, differing_bits: int, case: Case) -> str:
    """The causes of the bits that differ, or of the whole field when none does; each said once."""
    positions: Sequence[int] = range(field.low, field.high + 1)
    if differing_bits:
        positions = [p for p in positions if differing_bits >> (p - field.low) & 1]
    causes = dict.fromkeys(case.judge.cause(Bit(leaf, field.register, p), case.evidence) for p in positions)
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
