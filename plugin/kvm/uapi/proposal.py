"""Numbers and structures of the 2024 proposal, as this project renders it (docs/kvm-proposal-abi.md).

Linux counts its sub-command ids up from 0; these start far away, so that they cannot come to mean two things.
"""

from plugin.kvm.uapi.constants import TDX_SUBCOMMANDS
from plugin.kvm.uapi.layout import Layout

TDX_GET_CONFIG_CPUID = 0x1000
TDX_INIT_VCPU_CPUID = 0x1001
MAX_LEAVES = 256
"""How many leaves one KVM_TDX_INIT_VCPU_CPUID may ask for: as many as the module has readable leaf numbers."""

TDX_CPUID_LEAF = Layout("kvm_tdx_cpuid_leaf", function="I", index="I", flags="I", padding="I")
TDX_INIT_VCPU_CPUID_HEAD = Layout(
    "kvm_tdx_init_vcpu_cpuid",
    leaves="Q", nr_leaves="I", reserved="20s", cpuid_nent="I", cpuid_padding="I",
)  # fmt: skip

SUBCOMMANDS: dict[int, str] = TDX_SUBCOMMANDS | {
    TDX_GET_CONFIG_CPUID: "KVM_TDX_GET_CONFIG_CPUID",
    TDX_INIT_VCPU_CPUID: "KVM_TDX_INIT_VCPU_CPUID",
}
"""All names, those of the sub-commands that the proposal does without among them."""
