"""Rules of KVM that the kernel's own selftests found missing here; each was read in the kernel's source."""

from __future__ import annotations

import errno

import pytest

from plugin.cpuid import Leaf
from plugin.kvm.contract import Device
from plugin.kvm.device import msrs
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.capabilities import NUMBERS as CAPABILITIES
from plugin.kvm.uapi.cpuid import pack, unpack
from plugin.kvm.uapi.registers import SREGS
from tests.kvm.device.conftest import Vmm

LONG_MODE = {"cr0": 0x80000001, "cr4": 1 << 5, "efer": 0x500}


@pytest.fixture
def vm(vmm: Vmm) -> Device:
    return vmm.open(vmm.system, "KVM_CREATE_VM", c.X86_DEFAULT_VM)


def enable(vmm: Vmm, vm: Device, name: str, value: int) -> None:
    vmm.call(vm, "KVM_ENABLE_CAP", s.ENABLE_CAP, CAPABILITIES[name], 0, value.to_bytes(8, "little"), b"")


def test_the_highest_vcpu_id_is_set_once_and_holds(vmm: Vmm, vm: Device) -> None:
    vmm.ioctl(vm, "KVM_SET_BOOT_CPU_ID", 2)
    for wrong in (c.MAX_VCPU_IDS + 1, 1):
        with vmm.fails(errno.EINVAL):
            enable(vmm, vm, "MAX_VCPU_ID", wrong)
    enable(vmm, vm, "MAX_VCPU_ID", 2)
    enable(vmm, vm, "MAX_VCPU_ID", 2)
    with vmm.fails(errno.EINVAL):
        enable(vmm, vm, "MAX_VCPU_ID", 3)
    for wrong in (2, 1 << 32):
        with vmm.fails(errno.EINVAL):
            vmm.open(vm, "KVM_CREATE_VCPU", wrong)
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vm, "KVM_SET_BOOT_CPU_ID", 3)
    vmm.open(vm, "KVM_CREATE_VCPU", 1)


def test_feature_msrs_begin_at_zero_without_the_quirk(vmm: Vmm, vm: Device) -> None:
    enable(vmm, vm, "DISABLE_QUIRKS2", c.X86_QUIRK_STUFF_FEATURE_MSRS)
    vcpu = vmm.open(vm, "KVM_CREATE_VCPU", 0)
    other = vmm.open(vmm.open(vmm.system, "KVM_CREATE_VM", 0), "KVM_CREATE_VCPU", 0)
    for index, value in msrs.FEATURES.items():
        values = []
        address = vmm.place(s.MSRS.pack(1, 0) + s.MSR_ENTRY.pack(index, 0, 1))
        for device in (vcpu, other):
            vmm.ioctl(device, "KVM_GET_MSRS", address)
            values.append(s.MSR_ENTRY.unpack(vmm.memory.read(address + s.MSRS.size, s.MSR_ENTRY.size))[2])
        assert values == [0, value]


def sregs(**registers: int) -> bytes:
    """A struct kvm_sregs2 with these registers and 0 for the others; ``cs_l`` is the field l of CS."""
    values = {name.replace("_", ".", 1) if name[2:3] == "_" else name: value for name, value in registers.items()}
    assert values.keys() <= SREGS.fields.keys()
    whole = SREGS.pack(*(b"" if code.endswith("s") else values.get(name, 0) for name, code in SREGS.fields.items()))
    return whole.ljust(s.SREGS2.size, b"\0")


def with_cpuid(vmm: Vmm, vm: Device, number: int = 0) -> Device:
    """A vCPU that has all that KVM supports."""
    vcpu = vmm.open(vm, "KVM_CREATE_VCPU", number)
    entries = vmm.kvm.host.supported.entries
    vmm.ioctl(vcpu, "KVM_SET_CPUID2", vmm.place(s.CPUID2.pack(len(entries), 0) + pack(entries)))
    return vcpu


@pytest.mark.parametrize("name", ["SREGS", "SREGS2"])
def test_control_registers_are_kept(vmm: Vmm, vm: Device, name: str) -> None:
    vcpu, state = with_cpuid(vmm, vm), sregs(cs_l=1, **LONG_MODE, apic_base=0xFEE00800)
    vmm.ioctl(vcpu, f"KVM_SET_{name}", vmm.place(state))
    back = vmm.place(bytes(len(state)))
    vmm.ioctl(vcpu, f"KVM_GET_{name}", back)
    size = getattr(s, name).size
    assert vmm.memory.read(back, size) == state[:size]


def test_the_state_after_reset_is_taken(vmm: Vmm, vm: Device) -> None:
    """Real mode: CS is a code segment (s), not a 64-bit one (l)."""
    code = {"cs_base": 0xFFFF0000, "cs_limit": 0xFFFF, "cs_selector": 0xF000, "cs_type": 11, "cs_present": 1, "cs_s": 1}
    state = sregs(**code, cr0=0x60000010, apic_base=0xFEE00900)
    vmm.ioctl(with_cpuid(vmm, vm), "KVM_SET_SREGS", vmm.place(state))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cr4": 1 << 14}, {"cr4": 1 << 13}, {"efer": 1 << 12}, {"efer": 1 << 1}, {"cr0": 1 << 32}, {"cr0": 1 << 29},
        {"cr0": 1 << 31}, LONG_MODE | {"cr4": 0}, LONG_MODE | {"efer": 0x100}, {"efer": 0x400}, {"cs_l": 1},
        {"apic_base": 1 << 10}, {"apic_base": 1}, {"apic_base": 1 << 60},
    ],
    ids=str,
)  # fmt: skip
def test_control_registers_that_cannot_be_are_refused(vmm: Vmm, vm: Device, wrong: dict[str, int]) -> None:
    vcpu = with_cpuid(vmm, vm)
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vcpu, "KVM_SET_SREGS", vmm.place(sregs(**wrong)))


@pytest.mark.parametrize("feature", [{"cr4": 1 << 20}, {"efer": 1 << 8}, {"efer": 1 << 11}, {"cr4": 1 << 18}], ids=str)
def test_what_a_vcpu_may_turn_on_its_cpuid_says(vmm: Vmm, vm: Device, feature: dict[str, int]) -> None:
    address = vmm.place(sregs(**feature))
    vmm.ioctl(with_cpuid(vmm, vm), "KVM_SET_SREGS", address)
    without = vmm.open(vm, "KVM_CREATE_VCPU", 1)
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(without, "KVM_SET_SREGS", address)


def test_cpuid_follows_cr4(vmm: Vmm, vm: Device) -> None:
    vcpu = with_cpuid(vmm, vm)
    seen = []
    for cr4 in (1 << 18 | 1 << 22, 0):
        vmm.ioctl(vcpu, "KVM_SET_SREGS", vmm.place(sregs(cr4=cr4)))
        room = len(vmm.kvm.host.supported.entries)
        address = vmm.place(s.CPUID2.pack(room, 0) + bytes(room * s.CPUID_ENTRY2.size))
        vmm.ioctl(vcpu, "KVM_GET_CPUID2", address)
        by_leaf = {e.leaf: e.registers for e in unpack(vmm.memory.read(address + 8, room * s.CPUID_ENTRY2.size))}
        seen.append((by_leaf[Leaf(1)].ecx >> 27 & 1, by_leaf[Leaf(7, 0)].ecx >> 4 & 1))
    assert seen == [(1, 1), (0, 0)]
