"""Faults that the real thing can have, injected on request: `--fault SPEC`.

A specification is one of

    entropy[=N]                    KVM_TDX_INIT_VM fails with EAGAIN, always or N times
    init-vm=OPERAND[:LEAF]         KVM_TDX_INIT_VM is refused by the module: CPUID_CONFIG:0x7.0, XFAM, ATTRIBUTES, ...
    get-cpuid-shrinks              reading back asks for more room first, and then has one leaf less each time
    vcpu-differs=N:LEAF.REG[BIT]   vCPU N reads back one bit otherwise than it is
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from plugin.cpuid.leaf import REGISTERS, Bit, Leaf
from plugin.kvm.contract import Memory, Reply, then
from plugin.kvm.dialects.commands import Command, refused_by_module
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import proposal as p
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, pack, unpack
from plugin.tdx_module import SeamcallError, statuses
from plugin.tdx_module.errors import cpuid_refused
from plugin.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.kvm.dialects.contract import TdVcpu, TdVm, TdxDialect

INJECTED = "(injected by --fault)"
FOREVER = -1
OPERANDS = {
    "ATTRIBUTES": statuses.OPERAND_INVALID | statuses.ATTRIBUTES,
    "XFAM": statuses.OPERAND_INVALID | statuses.XFAM,
    "CPUID_CONFIG": statuses.OPERAND_INVALID | statuses.CPUID_CONFIG,
    "TSC_FREQUENCY": statuses.OPERAND_INVALID | statuses.TSC_FREQUENCY,
    "CPUID_LEAF_1F_FORMAT_UNRECOGNIZED": statuses.CPUID_LEAF_1F_FORMAT_UNRECOGNIZED,
    "INCORRECT_MSR_VALUE": statuses.INCORRECT_MSR_VALUE | statuses.IA32_ARCH_CAPABILITIES,
}
"""What TDH.MNG.INIT can be made to answer, by operand or by status."""
WORDS = ("entropy", "init-vm", "get-cpuid-shrinks", "vcpu-differs")


class UnknownFault(ValueError):
    """A specification that is none; the message says what there is."""


class Faults:
    """What is going to go wrong. Raises UnknownFault for a specification that cannot be read."""

    def __init__(self, specifications: Sequence[str]) -> None:
        self.without_entropy = 0
        """How many times KVM_TDX_INIT_VM still finds no entropy; below 0 = always."""
        self.refusal: SeamcallError | None = None
        self.shrinks = False
        self.flipped: dict[int, list[Bit]] = {}
        """vCPU number to the bits that it reads otherwise."""
        for text in specifications:
            self._take(text)

    def _take(self, text: str) -> None:
        word, equals, value = text.partition("=")
        try:
            if word == "entropy":
                self.without_entropy = int(value) if equals else FOREVER
                if equals and self.without_entropy < 1:
                    raise ValueError("how often is a number from 1 on")
            elif word == "init-vm":
                self.refusal = _refusal(value)
            elif text == "get-cpuid-shrinks":
                self.shrinks = True
            elif word == "vcpu-differs":
                number, colon, bit = value.partition(":")
                if not colon:
                    raise ValueError("write it as vcpu-differs=1:0x7.0.ebx[5]")
                self.flipped.setdefault(int(number), []).append(parse_bit(bit))
            else:
                raise ValueError(f"there are {', '.join(WORDS)}")
        except ValueError as error:
            raise UnknownFault(f"--fault {text}: {error}") from error


def parse_bit(text: str) -> Bit:
    """Read ``0x7.0.ebx[5]``. Raises ValueError."""
    place, bracket, position = text.removesuffix("]").partition("[")
    leaf, _, register = place.rpartition(".")
    if not bracket or register not in REGISTERS or not 0 <= int(position) < 32:
        raise ValueError(f"{text} is not a bit; write it as 0x7.0.ebx[5]")
    return Bit(Leaf.parse(leaf), register, int(position))


def _refusal(value: str) -> SeamcallError:
    operand, colon, leaf = value.partition(":")
    if operand not in OPERANDS:
        raise ValueError(f"the module can refuse {', '.join(OPERANDS)}")
    if colon and operand != "CPUID_CONFIG":
        raise ValueError("only CPUID_CONFIG has a leaf")
    if operand != "CPUID_CONFIG":
        return SeamcallError(OPERANDS[operand], f"refused {INJECTED}")
    at = Leaf.parse(leaf) if colon else Leaf(0x7, 0)
    return cpuid_refused(at, f"leaf {at} refused {INJECTED}")


class FaultyTdx:
    """A dialect around another one: what that one refuses stays refused, what it grants may go wrong.

    A fault that happens only so often is spent with the answer's commit: a caller that saw none has it before it still.
    """

    def __init__(self, inner: TdxDialect, faults: Faults) -> None:
        self.interface = inner.interface
        self.takes_cpuid2 = inner.takes_cpuid2
        self._inner = inner
        self._faults = faults
        self._asked_for_room: set[int] = set()
        """vCPUs that were told that there is too little room."""
        self._missing = 0
        """How many leaves fewer than there are were read last."""

    def vm(self, vm: TdVm, argument: int, memory: Memory) -> Reply:
        """Answer as the inner dialect, unless KVM_TDX_INIT_VM is to fail. Raises Rejected, BadAddress."""
        command = Command(argument, memory, p.SUBCOMMANDS)
        reply = self._inner.vm(vm, argument, memory)
        if command.id != c.TDX_INIT_VM:
            return reply
        if self._faults.without_entropy:
            why = f"TDH.MNG.CREATE: RND_NO_ENTROPY: the random number generator is busy {INJECTED}"
            raise command.reject(errno.EAGAIN, why).then(self._spend_entropy)
        if self._faults.refusal is not None:
            raise refused_by_module(command, self._faults.refusal)
        return reply

    def _spend_entropy(self) -> None:
        self._faults.without_entropy -= 1

    def vcpu(self, vcpu: TdVcpu, argument: int, memory: Memory) -> Reply:
        """Answer as the inner dialect, with what is read back changed. Raises Rejected, BadAddress."""
        command = Command(argument, memory, p.SUBCOMMANDS)
        reply = self._inner.vcpu(vcpu, argument, memory)
        offset = {c.TDX_GET_CPUID: 0, p.TDX_INIT_VCPU_CPUID: p.TDX_INIT_VCPU_CPUID_HEAD.offset("cpuid_nent")}
        if command.id in offset:
            self._change(vcpu, command, command.data + offset[command.id])
            if self._faults.shrinks:
                return reply._replace(commit=then(reply.commit, self._lose_a_leaf))
        return reply

    def _change(self, vcpu: TdVcpu, command: Command, address: int) -> None:
        memory = command.memory
        count, padding = s.CPUID2.unpack(memory.read(address, s.CPUID2.size))
        entries = unpack(memory.read(address + s.CPUID2.size, count * s.CPUID_ENTRY2.size))
        if self._faults.shrinks:
            entries = self._shrink(vcpu, command, entries)
        for bit in self._faults.flipped.get(vcpu.number, []):
            entries = [flip(one, bit) for one in entries]
        memory.write(address, s.CPUID2.pack(len(entries), padding) + pack(entries))

    def _shrink(self, vcpu: TdVcpu, command: Command, entries: list[Entry]) -> list[Entry]:
        """Ask for room first, as a TD does that has more leaves than fit; then have one leaf less than before.

        The inner dialect has written the number needed into nent.
        """
        if vcpu.number not in self._asked_for_room:
            refused = command.reject(errno.E2BIG, f"{len(entries)} entries do not fit {INJECTED}")
            raise refused.then(lambda: self._asked_for_room.add(vcpu.number))
        return entries[: -self._missing - 1]

    def _lose_a_leaf(self) -> None:
        self._missing += 1


def flip(entry: Entry, bit: Bit) -> Entry:
    """Return the entry with the bit inverted, if it is in there."""
    if (entry.function, entry.subleaf) != (bit.leaf.number, bit.leaf.subleaf or 0):
        return entry
    value = entry.registers.get(bit.register) ^ 1 << bit.position
    return entry._replace(registers=entry.registers.with_(bit.register, value))
