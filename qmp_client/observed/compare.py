"""A dump against the prediction of what the guest's CPUID answers: what agrees, what contradicts, what is no evidence.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from plugin.cpuid import Bit, Leaf, Register, Registers
from plugin.cpuid.fields import fields_of
from plugin.cpuid.linux import CLEARED, EXACT, HIDDEN, SYNTHETIC, linux_flags
from plugin.cpuid.values import bits, say
from plugin.tdx_module.guest import PARAVIRTUAL
from qmp_client.observed.dump import Dump

CHOICE = "the module lets the VMM choose"
MODEL_NAME = (0x80000002, 0x80000003, 0x80000004)


class Result(StrEnum):
    """What one thing in a dump says about the prediction."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    EXPLAINED = "explained"
    """It is not as predicted, and that is known of the system that wrote the dump."""
    OTHER_CHOICE = "other choice"
    """It is not as predicted, and the module lets a VMM have it so."""
    NO_EVIDENCE = "no evidence"
    """It cannot tell."""


class Finding(msgspec.Struct, frozen=True):
    """One flag, line or field of a dump."""

    name: str
    where: str
    """The place in CPUID; empty where there is none."""
    predicted: str
    observed: str
    result: Result
    why: str = ""
    cause: str = ""
    """Who decided the predicted value; empty where the prediction has no line about it."""


Predicted = Mapping[tuple[int, int], Registers | None]
"""What the guest's code finds, by leaf and sub-leaf; None where the VMM answers and nobody knows with what."""
Causes = Mapping[str, str]
"""Who decided a field, by its place."""
Free = Callable[[Bit, int], bool]
"""Whether another VMM's TD can have a bit so."""


def nothing_is_free(bit: Bit, value: int) -> bool:
    """The VMM's choices are known: what is not as predicted contradicts."""
    del bit, value
    return False


def compare(dump: Dump, predicted: Predicted, causes: Causes, free: Free = nothing_is_free) -> list[Finding]:
    """Hold a dump against a prediction."""
    if dump.flags is None:
        found = _registers(dump, predicted, free)
    else:
        found = [*_flags(dump.flags, predicted, free), *_said(dump, predicted)]
    return [msgspec.structs.replace(one, cause=causes.get(one.where, "")) for one in found]


def _flags(flags: frozenset[str], predicted: Predicted, free: Free) -> list[Finding]:
    found = [
        Finding(word, "", "-", "there", Result.NO_EVIDENCE, "a word that is not known")
        for word in sorted(flags - linux_flags().keys())
    ]
    for name, flag in linux_flags().items():
        there = name in flags
        value = None if flag.bit is None else _bit(flag.bit, predicted)
        place = "" if flag.bit is None else str(flag.bit)
        if flag.evidence in (SYNTHETIC, HIDDEN):
            result, why = Result.NO_EVIDENCE, flag.note
        elif value is None:
            result, why = Result.NO_EVIDENCE, "the VMM answers there"
        elif there == bool(value):
            result, why = Result.AGREES, ""
        elif flag.bit is not None and (there or flag.evidence == EXACT):
            result = Result.OTHER_CHOICE if free(flag.bit, int(there)) else Result.CONTRADICTS
            why = CHOICE if result is Result.OTHER_CHOICE else ""
        else:
            result, why = Result.EXPLAINED if flag.evidence == CLEARED else Result.NO_EVIDENCE, flag.note
        if there or value:
            found.append(Finding(name, place, _digit(value), "1" if there else "0", result, why))
    return found


def _digit(value: int | None) -> str:
    return "-" if value is None else f"{value}"


def _bit(bit: Bit, predicted: Predicted) -> int | None:
    registers = predicted.get((bit.leaf.number, bit.leaf.subleaf or 0))
    return None if registers is None else registers.get(bit.register) >> bit.position & 1


def _said(dump: Dump, predicted: Predicted) -> Iterator[Finding]:
    """The other lines of /proc/cpuinfo, as Linux makes them (arch/x86/kernel/cpu/common.c)."""
    leaf_0, leaf_1 = predicted.get((0, 0)), predicted.get((1, 0))
    if leaf_0 is None or leaf_1 is None:
        return
    family, model = leaf_1.eax >> 8 & 0xF, leaf_1.eax >> 4 & 0xF | (leaf_1.eax >> 16 & 0xF) << 4
    lines = {
        "cpuid level": (f"{leaf_0.eax}", "0x0.eax[31:0]"),
        "cpu family": (f"{family}", "0x1.eax[11:8]"),
        "model": (f"{model}", "0x1.eax[7:4]"),
        "stepping": (f"{leaf_1.eax & 0xF}", "0x1.eax[3:0]"),
        "clflush size": (f"{(leaf_1.ebx >> 8 & 0xFF) * 8}", "0x1.ebx[15:8]"),
    }
    brand = [predicted.get((leaf, 0)) for leaf in MODEL_NAME]
    if all(registers is not None for registers in brand):
        words = b"".join(word.to_bytes(4, "little") for registers in brand for word in registers or ())
        name = " ".join(words.partition(b"\0")[0].decode("latin-1").split()) or f"{family:02x}/{model:02x}"
        lines["model name"] = (name, "0x80000002")
    for key, (value, place) in lines.items():
        if key in dump.said:
            same = dump.said[key] == value
            yield Finding(key, place, value, dump.said[key], Result.AGREES if same else Result.CONTRADICTS)


def _registers(dump: Dump, predicted: Predicted, free: Free) -> list[Finding]:
    last = {base: dump.cpuid[base, 0].eax for base in (0x0, 0x80000000) if (base, 0) in dump.cpuid}
    found: list[Finding] = []
    for (number, subleaf), registers in sorted(dump.cpuid.items()):
        if number in PARAVIRTUAL or number > last.get(number & 0x80000000, 0):
            continue  # a hypervisor's own, or above the maximum: answered as for another leaf
        expected = predicted.get((number, subleaf), predicted.get((number, 0)) if subleaf else None)
        if (number, subleaf) not in predicted and not _ignores_subleaf(number, predicted):
            found += _unpredicted(Leaf(number, subleaf), registers)
        elif expected is None:
            found.append(
                Finding(
                    f"leaf {Leaf(number, subleaf)}",
                    f"{Leaf(number)}",
                    "-",
                    "-",
                    Result.NO_EVIDENCE,
                    "the VMM answers there",
                )
            )
        else:
            found += _fields(_spelled(number, subleaf, predicted), expected, registers, free)
    return found


def _ignores_subleaf(number: int, predicted: Predicted) -> bool:
    return sum(leaf == number for leaf, _ in predicted) == 1


def _spelled(number: int, subleaf: int, predicted: Predicted) -> Leaf:
    return Leaf(number, subleaf if not _ignores_subleaf(number, predicted) else None)


def _unpredicted(leaf: Leaf, registers: Registers) -> list[Finding]:
    if not any(registers):
        return []
    return [Finding(f"leaf {leaf}", f"{leaf}", "-", "a value", Result.NO_EVIDENCE, "a sub-leaf that is not modelled")]


def _fields(leaf: Leaf, expected: Registers, registers: Registers, free: Free) -> Iterator[Finding]:
    for field in fields_of(leaf, expected | registers):
        one, two = field.extract(expected), field.extract(registers)
        if not one and not two:
            continue
        place = _place(leaf, field.register, field.low, field.high)
        name = field.qemu_name if field.qemu_name and field.width == 1 else field.name or "(no name)"
        said = [say(field.name, field.width, value) for value in (one, two)]
        differing = [bit for n, bit in enumerate(field.bits(leaf)) if (one ^ two) >> n & 1]
        if field.dynamic:
            yield Finding(name, place, "-", said[1], Result.NO_EVIDENCE, "depends on the moment or the vCPU")
        elif not differing:
            yield Finding(name, place, said[0], said[1], Result.AGREES)
        elif all(free(bit, registers.get(bit.register) >> bit.position & 1) for bit in differing):
            yield Finding(name, place, said[0], said[1], Result.OTHER_CHOICE, CHOICE)
        else:
            yield Finding(name, place, said[0], said[1], Result.CONTRADICTS)


def _place(leaf: Leaf, register: Register, low: int, high: int) -> str:
    return f"{leaf}.{register}[{bits(low, high)}]"


def count(findings: Sequence[Finding]) -> dict[str, int]:
    """How many there are of each result."""
    counts = dict.fromkeys((result.value for result in Result), 0)
    for finding in findings:
        counts[finding.result] += 1
    return counts
