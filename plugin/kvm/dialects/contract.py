"""The line between the devices and the dialects: what each may ask of the other. Types only.

As everywhere (`plugin.kvm.contract.Reply.commit`), what changes a VM or vCPU is called once the kernel has taken the
answer.
"""

from __future__ import annotations

from plugin.kvm.contract import Memory, Reply
from plugin.kvm.dialects.td import TdState
from plugin.kvm.uapi.cpuid import Entry
from plugin.typing import Protocol


class TdVm(Protocol):
    """A VM that was created as a TD, as a dialect sees it."""

    @property
    def td(self) -> TdState | None:
        """The TD, None before KVM_TDX_INIT_VM."""

    @property
    def tsc_khz(self) -> int:
        """TSC frequency of new vCPUs in kHz."""

    @property
    def created_vcpus(self) -> int:
        """How many vCPUs exist."""

    def became(self, td: TdState) -> None:
        """Take the TD that KVM_TDX_INIT_VM made."""


class TdVcpu(Protocol):
    """A vCPU of a TD, as a dialect sees it."""

    @property
    def number(self) -> int:
        """The vCPU's id."""

    @property
    def td(self) -> TdState | None:
        """The TD that it belongs to, None before KVM_TDX_INIT_VM."""

    @property
    def cpuid(self) -> tuple[Entry, ...]:
        """What KVM believes of the vCPU's CPUID."""

    @property
    def td_initialised(self) -> bool:
        """Whether the module has it (KVM_TDX_INIT_VCPU)."""

    def populatable(self, first: int, end: int) -> int:
        """Return how far the guest addresses [first, end) can be populated: the first address that cannot."""

    def became_td(self) -> None:
        """Take KVM_TDX_INIT_VCPU."""

    def take_cpuid(self, entries: tuple[Entry, ...]) -> None:
        """Take KVM's copy of the vCPU's CPUID."""


class TdxDialect(Protocol):
    """One way of talking to KVM about TDs. `argument` is the address of a struct kvm_tdx_cmd in the caller's memory."""

    interface: str
    """Its name, as users know it."""
    takes_cpuid2: bool
    """Whether KVM_SET_CPUID2 is allowed on a TD's vCPU."""

    def vm(self, vm: TdVm, argument: int, memory: Memory) -> Reply:
        """Answer KVM_MEMORY_ENCRYPT_OP on a TD's descriptor. Raises Rejected, BadAddress."""

    def vcpu(self, vcpu: TdVcpu, argument: int, memory: Memory) -> Reply:
        """Answer KVM_MEMORY_ENCRYPT_OP on a TD's vCPU. Raises Rejected, BadAddress."""
