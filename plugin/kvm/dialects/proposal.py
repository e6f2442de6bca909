"""The dialect of the 2024 proposal: a VMM asks for a TD's CPUID (docs/kvm-proposal-abi.md).

KVM_TDX_GET_CONFIG_CPUID tells what KVM knows of what the module can configure, KVM_TDX_INIT_VM takes the choice, and
KVM_TDX_INIT_VCPU_CPUID reads back. What the module can configure and KVM does not know is hidden, and set to 1.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping

from plugin.cpuid.leaf import REGISTERS, ZERO, Leaf, Registers
from plugin.kvm.contract import Reply
from plugin.kvm.dialects.commands import Command, TdxCommands
from plugin.kvm.dialects.td import TdState, read_leaf
from plugin.kvm.policy import UNSUPPORTED_CPUID, WIDTH, WIDTH_LEAF
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import proposal as p
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, entry, pack
from plugin.tdx_module import ModuleVersion, Platform
from plugin.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.kvm.dialects.contract import TdVcpu, TdVm


def known_cpuid() -> Mapping[Leaf, Registers]:
    """Return KVM's static list (data/known_cpuid.json); a leaf without sub-leaf stands for all of them."""
    path = os.path.join(os.path.dirname(__file__), "data", "known_cpuid.json")
    with open(path, encoding="ascii") as file:
        rows = json.load(file)["leaves"]
    known: dict[Leaf, Registers] = {}
    for row in rows:
        leaf = Leaf.parse(row["leaf"])
        mask = Registers(*(int(row.get(register, "0"), 16) for register in REGISTERS))
        known[leaf] = known.get(leaf, ZERO) | mask
    return known


class ProposalTdx(TdxCommands):
    """KVM shows what it knows, decides the rest itself, and takes a vCPU's CPUID from the TD."""

    interface = "proposal"
    takes_cpuid2 = False
    names = p.SUBCOMMANDS

    def __init__(self, module: ModuleVersion, platform: Platform, *, xfam_of_kvm: int, five_level_ept: bool) -> None:
        super().__init__(module, platform, xfam_of_kvm=xfam_of_kvm, five_level_ept=five_level_ept)
        known = known_cpuid()
        self.offered: dict[Leaf, Registers] = {}
        """What KVM_TDX_GET_CONFIG_CPUID shows: KVM's list, as far as the module can configure it."""
        self.unknown: dict[Leaf, Registers] = {}
        """What the module can configure and KVM does not know: KVM sets it to 1."""
        for leaf, mask in module.configurable.items():
            of_kvm = known.get(leaf) or known.get(Leaf(leaf.number)) or ZERO
            shown = (mask & of_kvm).without(UNSUPPORTED_CPUID.get(leaf, ZERO))
            if shown != ZERO:
                self.offered[leaf] = shown
            if (rest := mask.without(of_kvm)) != ZERO:
                self.unknown[leaf] = rest
        self.offered[WIDTH_LEAF] = self.offered.get(WIDTH_LEAF, ZERO) | WIDTH
        self._slots = {(leaf.number, leaf.subleaf or 0): leaf for leaf in self.offered}
        self.vm_commands |= {
            c.TDX_CAPABILITIES: self._capabilities,
            p.TDX_GET_CONFIG_CPUID: self._get_config_cpuid,
        }
        self.vcpu_commands[p.TDX_INIT_VCPU_CPUID] = self._init_vcpu_cpuid

    # On the VM

    def _capabilities(self, vm: TdVm, command: Command) -> Reply:
        """Report supported ATTRIBUTES and XFAM, with no CPUID entry. EINVAL: flags. EIO: as upstream."""
        command.no_flags()
        header = command.memory.read(command.data, s.TDX_CAPABILITIES.size)
        *_, padding = s.TDX_CAPABILITIES.unpack(header)
        return self.write_capabilities(command, 0, padding, b"")

    def _get_config_cpuid(self, vm: TdVm, command: Command) -> Reply:
        """Report the configurable bits that KVM knows, as masks.

        EINVAL: flags or padding. E2BIG: too few entries; nent is then the number needed.
        """
        command.no_flags()
        memory = command.memory
        room, padding = s.CPUID2.unpack(memory.read(command.data, s.CPUID2.size))
        if padding:
            raise command.reject(errno.EINVAL, "padding must be 0")
        entries = [entry(leaf, mask) for leaf, mask in self.offered.items()]
        return self._write_entries(command, command.data, room, entries)

    def config(self, command: Command, entries: list[Entry]) -> dict[Leaf, Registers]:
        """Put the entries into TD_PARAMS.CPUID_CONFIG[], with 1 for every bit that KVM does not know.

        Raises Rejected EINVAL for a bit that KVM_TDX_GET_CONFIG_CPUID does not show.
        """
        chosen = self.place(command, entries, self._slots)
        for leaf, value in chosen.items():
            excess = value.without(self.offered[leaf])
            for register, bits in zip(REGISTERS, excess, strict=True):
                if bits:
                    first = (bits & -bits).bit_length() - 1
                    raise command.reject(
                        errno.EINVAL,
                        f"{leaf}.{register}[{first}] is not among the bits that KVM_TDX_GET_CONFIG_CPUID shows",
                    )
        return {leaf: chosen.get(leaf, ZERO) | self.unknown.get(leaf, ZERO) for leaf in self.module.configurable}

    # On a vCPU

    def _init_vcpu_cpuid(self, vcpu: TdVcpu, td: TdState, command: Command) -> Reply:
        """Read leaves from the TD, keep them as the vCPU's CPUID, and return them.

        A leaf without KVM_CPUID_FLAG_SIGNIFCANT_INDEX stands for all its sub-leaves. What the TD does not have is
        left out. A second call replaces what the first one kept.

        EINVAL: flags, after KVM_TDX_INIT_VCPU, reserved fields or padding, an unknown flag of a leaf, or an index
        without that flag. E2BIG: more than 256 leaves are asked for, or the entries do not fit; nent is then the
        number needed, and the vCPU keeps what it had.
        """
        command.no_flags()
        if vcpu.td_initialised:
            raise command.reject(errno.EINVAL, "the vCPU is initialised already (KVM_TDX_INIT_VCPU)")
        memory = command.memory
        head = memory.read(command.data, p.TDX_INIT_VCPU_CPUID_HEAD.size)
        address, count, reserved, room, padding = p.TDX_INIT_VCPU_CPUID_HEAD.unpack(head)
        if any(reserved) or padding:
            raise command.reject(errno.EINVAL, "reserved fields and padding must be 0")
        if count > p.MAX_LEAVES:
            raise command.reject(errno.E2BIG, f"{count} leaves; at most {p.MAX_LEAVES} can be asked for")
        raw = memory.read(address, count * p.TDX_CPUID_LEAF.size) if count else b""
        found: dict[Leaf, Entry] = {}
        for at in range(0, len(raw), p.TDX_CPUID_LEAF.size):
            function, index, flags, leaf_padding = p.TDX_CPUID_LEAF.unpack(raw, at)
            one = bool(flags & c.CPUID_FLAG_SIGNIFCANT_INDEX)
            if flags & ~c.CPUID_FLAG_SIGNIFCANT_INDEX or leaf_padding or (index and not one):
                raise command.reject(
                    errno.EINVAL, f"leaf {function:#x}: flags {flags:#x}, index {index}, or padding that is not 0"
                )
            for value in read_leaf(td.td, function, td.record.gpaw):
                if not one or value.subleaf == index:
                    found.setdefault(value.leaf, value)
        entries = list(found.values())
        at = command.data + p.TDX_INIT_VCPU_CPUID_HEAD.offset("cpuid_nent")
        reply = self._write_entries(command, at, room, entries)
        return reply._replace(commit=lambda: vcpu.take_cpuid(tuple(entries)))

    @staticmethod
    def _write_entries(command: Command, address: int, room: int, entries: list[Entry]) -> Reply:
        """Write struct kvm_cpuid2. Raises Rejected E2BIG, with the number needed in nent, if they do not fit."""
        memory = command.memory
        header = s.CPUID2.pack(len(entries), 0)
        if room < len(entries):
            memory.write(address, header)
            raise command.reject(errno.E2BIG, f"{len(entries)} entries do not fit in {room}")
        memory.write(address, header + pack(entries))
        return Reply()
