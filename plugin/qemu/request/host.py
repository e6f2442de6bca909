"""What QEMU finds on the host: the processor, and what KVM answers."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from plugin.cpuid import Registers


class Host(NamedTuple):
    """A processor and a KVM with TDX. Tables are keyed by leaf and sub-leaf, 0 where there is none."""

    execute: Callable[[int, int], Registers]
    """The CPUID instruction: QEMU executes it for ``-cpu host``, for address widths and for XSAVE offsets."""
    supported: Mapping[tuple[int, int], Registers]
    """KVM_GET_SUPPORTED_CPUID; the first entry where there are several."""
    guest_states: int
    """XCR0 bits that a guest can have (KVM_X86_XCOMP_GUEST_SUPP)."""
    configurable: Mapping[tuple[int, int], Registers]
    """KVM_TDX_CAPABILITIES: masks of what can be configured."""
    attributes: int
    """KVM_TDX_CAPABILITIES: supported ATTRIBUTES."""
    xfam: int
    """KVM_TDX_CAPABILITIES: supported XFAM."""
    tsc_khz: int
    """KVM_GET_TSC_KHZ of a vCPU."""
