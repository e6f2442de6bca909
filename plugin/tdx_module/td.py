"""A TD after TDH.MNG.INIT: what its leaves read, why, and what CPUID answers in the guest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from plugin.cpuid import REGISTERS, Bit, Leaf, Register, Registers
from plugin.tdx_module import xsave
from plugin.tdx_module.cause import VE, Cause
from plugin.tdx_module.draft import Draft
from plugin.tdx_module.guest import Answer, Controls, answer, settled
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.platform import Platform
from plugin.tdx_module.rules.asking import ENUM_TOPOLOGY
from plugin.typing import NamedTuple

CPUID_EXIT = 10
"""The VM exit reason that a #VE for CPUID carries."""


class TdParams(NamedTuple):
    """TD_PARAMS, as far as CPUID depends on it.

    ``cpuid_config`` holds CPUID_CONFIG[] by leaf, 0 for what is missing. ``tsc_khz`` is the virtual TSC frequency in
    kHz, rounded down to the module's unit of 25 MHz; 0 = the platform's.
    """

    attributes: int
    xfam: int
    cpuid_config: Mapping[Leaf, Registers]
    tsc_khz: int = 0


class VcpuState(NamedTuple):
    """What CPUID in the guest depends on, besides the TD."""

    apic_id: int = 0
    """The x2APIC id that TDH.VP.INIT was given; seen by a guest with ENUM_TOPOLOGY."""
    vcpu_index: int = 0
    """The vCPU's number in the TD: its APIC id for a guest without."""
    osxsave: bool = True
    pke: bool = False
    xcr0: int = 0x3
    xss: int = 0
    tsx_cpuid_clear: bool = False
    long_mode: bool = True
    controls: Controls = Controls()
    """What the guest has set; see :func:`~plugin.tdx_module.guest.settled`."""
    user_mode: bool = False
    """A program asks, not the guest's kernel."""


class VirtualizationException(NamedTuple):
    """#VE instead of an answer: the guest has to ask the VMM by TDG.VP.VMCALL."""

    leaf: int
    subleaf: int
    exit_reason: int = CPUID_EXIT


class Td:
    """A TD's CPUID. Made by :func:`~plugin.tdx_module.init_td`; never changes."""

    def __init__(
        self,
        module: ModuleVersion,
        platform: Platform,
        params: TdParams,
        drafts: Mapping[Leaf, Draft],
    ) -> None:
        self.module = module
        self.platform = platform
        self.params = params
        self._drafts = drafts

    def _draft_of(self, leaf: Leaf) -> Draft | None:
        row = self.module.row_of(leaf)
        return None if row is None or row.ve else self._drafts[row.leaf]

    def read(self, leaf: Leaf) -> Registers | None:
        """Read a leaf's stored value (TDH.MNG.RD of CPUID_VALUES); None when the module has no readable field for it.

        A leaf that ignores sub-leaves answers for any sub-leaf; one that has them needs one. Dynamic bits read 0.
        """
        draft = self._draft_of(leaf)
        return None if draft is None else draft.registers

    @cached_property
    def cpuid(self) -> Mapping[Leaf, Registers]:
        """All readable leaves with their stored values, in ascending order."""
        readable = [row.leaf for row in self.module.rows.values() if not row.ve]
        return {leaf: self._drafts[leaf].registers for leaf in sorted(readable, key=lambda leaf: leaf.order)}

    def cause(self, bit: Bit) -> Cause:
        """Return who decided a bit; ``ve`` for a leaf without a value."""
        draft = self._draft_of(bit.leaf)
        return VE if draft is None else draft.cause(REGISTERS.index(bit.register), bit.position)

    def causes(self, leaf: Leaf, register: Register) -> tuple[Cause, ...]:
        """Return who decided each bit of a register, bit 0 first."""
        draft = self._draft_of(leaf)
        return (VE,) * 32 if draft is None else draft.causes(register)

    @cached_property
    def native(self) -> Mapping[Leaf, Registers]:
        """The processor's values as the module samples them, where a guest's controls can bring them back."""
        rows = {leaf: self.module.rows[leaf] for leaf in self.module.guest.native}
        return {
            leaf: self.platform.native_leaf(leaf).without(row.fixed0_or_dynamic) | row.fixed1
            for leaf, row in rows.items()
        }

    def seen(self, leaf: Leaf, controls: Controls) -> Answer:
        """Answer CPUID of the guest's kernel but for what depends on the moment: such bits are as they are stored."""
        return answer(self.module, self.cpuid, self.native, settled(self.module.guest, controls), leaf)

    def execute(self, leaf: int, subleaf: int, vcpu: VcpuState) -> Registers | VirtualizationException:
        """Answer CPUID as a vCPU of this TD sees it: the stored value with its dynamic parts, or #VE.

        A leaf above the maximum of the basic or extended range is treated as the highest basic leaf; 0x40000000 to
        0x4fffffff always raise #VE.
        """
        controls = settled(self.module.guest, vcpu.controls)
        forced = controls.user_ve if vcpu.user_mode else controls.supervisor_ve
        kernels = controls._replace(supervisor_ve=forced)
        found = answer(self.module, self.cpuid, self.native, kernels, Leaf(leaf, subleaf), apic_id=vcpu.apic_id)
        if found.registers is None:
            return VirtualizationException(leaf, subleaf)
        if self.read(Leaf(leaf, subleaf)) is None:
            return found.registers
        return self._with_dynamic(leaf, subleaf, found.registers, vcpu, enumerated=ENUM_TOPOLOGY in controls.td_ctls)

    def _with_dynamic(
        self, leaf: int, subleaf: int, stored: Registers, vcpu: VcpuState, *, enumerated: bool
    ) -> Registers:
        eax, ebx, ecx, edx = stored
        if leaf == 0x1:
            apic_id = vcpu.apic_id if enumerated else vcpu.vcpu_index
            ebx = ebx & 0x00FFFFFF | (apic_id & 0xFF) << 24
            ecx = ecx & ~(1 << 27) | vcpu.osxsave << 27
        elif leaf == 0x7 and subleaf == 0:
            ecx = ecx & ~(1 << 4) | vcpu.pke << 4
            if vcpu.tsx_cpuid_clear:
                ebx &= ~(1 << 4 | 1 << 11)
        elif leaf in (0xB, 0x1F):
            edx = vcpu.apic_id
        elif leaf == 0xD and subleaf == 0:
            ebx = xsave.standard_size(self.platform, vcpu.xcr0)
        elif leaf == 0xD and subleaf == 1:
            ebx = xsave.compacted_size(self.platform, vcpu.xcr0 | vcpu.xss)
        elif leaf == 0x80000001:
            edx = edx & ~(1 << 11) | vcpu.long_mode << 11
        return Registers(eax, ebx, ecx, edx)
