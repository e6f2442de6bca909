"""The dialect of Linux since 6.16: KVM_TDX_CAPABILITIES, KVM_TDX_INIT_VM, KVM_TDX_GET_CPUID."""

from __future__ import annotations

import errno

from plugin.cpuid.leaf import ZERO, Leaf, Registers
from plugin.kvm.contract import Reply
from plugin.kvm.dialects.commands import Command, TdxCommands
from plugin.kvm.dialects.td import TdState, read_cpuid
from plugin.kvm.policy import UNSUPPORTED_CPUID, WIDTH, WIDTH_LEAF
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, pack
from plugin.tdx_module import ModuleVersion, Platform
from plugin.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.kvm.dialects.contract import TdVcpu, TdVm


class UpstreamTdx(TdxCommands):
    """KVM shows what the module can configure, less what it must not let a TD have."""

    interface = "upstream"

    def __init__(self, module: ModuleVersion, platform: Platform, *, xfam_of_kvm: int, five_level_ept: bool) -> None:
        super().__init__(module, platform, xfam_of_kvm=xfam_of_kvm, five_level_ept=five_level_ept)
        self.configurable = tuple(self._shown(leaf, mask) for leaf, mask in module.configurable.items())
        """KVM_TDX_CAPABILITIES' entries, in the module's order; KVM never sets their flags."""
        self._slots = {(leaf.number, leaf.subleaf or 0): leaf for leaf in module.configurable}
        self.vm_commands[c.TDX_CAPABILITIES] = self._capabilities
        self.vcpu_commands[c.TDX_GET_CPUID] = self._get_cpuid

    @staticmethod
    def _shown(leaf: Leaf, mask: Registers) -> Entry:
        """Return one configurable leaf as KVM reports it (td_init_cpuid_entry2)."""
        if leaf.number == WIDTH_LEAF.number:
            mask |= WIDTH
        return Entry(leaf.number, leaf.subleaf or 0, 0, mask.without(UNSUPPORTED_CPUID.get(leaf, ZERO)))

    def _capabilities(self, vm: TdVm, command: Command) -> Reply:
        """Report what is supported and configurable (tdx_get_capabilities).

        EINVAL: flags. E2BIG: too few entries; nothing is written, not even how many are needed. EIO: the module
        forces an ATTRIBUTES or XFAM bit that KVM does not know.
        """
        command.no_flags()
        header = command.memory.read(command.data, s.TDX_CAPABILITIES.size)
        *_, room, padding = s.TDX_CAPABILITIES.unpack(header)
        if room < len(self.configurable):
            raise command.reject(errno.E2BIG, f"{len(self.configurable)} entries do not fit in {room}")
        return self.write_capabilities(command, len(self.configurable), padding, pack(self.configurable))

    def config(self, command: Command, entries: list[Entry]) -> dict[Leaf, Registers]:
        """Put the entries into TD_PARAMS.CPUID_CONFIG[] as they are: the module checks their bits."""
        return self.place(command, entries, self._slots)

    def _get_cpuid(self, vcpu: TdVcpu, td: TdState, command: Command) -> Reply:
        """Read the TD's CPUID (tdx_vcpu_get_cpuid). E2BIG with the number needed in nent if they do not fit."""
        memory = command.memory
        room, padding = s.CPUID2.unpack(memory.read(command.data, s.CPUID2.size))
        entries = read_cpuid(td.td, td.record.gpaw)
        header = s.CPUID2.pack(len(entries), padding)
        if room < len(entries):
            memory.write(command.data, header)
            raise command.reject(errno.E2BIG, f"{len(entries)} entries do not fit in {room}")
        memory.write(command.data, header + pack(entries))
        return Reply()
