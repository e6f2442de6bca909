"""KVM_GET_SUPPORTED_CPUID and KVM_GET_EMULATED_CPUID of a platform."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from plugin.cpuid import Leaf
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, unpack
from plugin.tdx_module import load_platform, platform_names

if TYPE_CHECKING:
    from plugin.tdx_module import Platform
    from tests.kvm.device.conftest import Vmm


@pytest.fixture(params=platform_names())
def platform(request: pytest.FixtureRequest) -> Platform:
    return load_platform(request.param)


def ask(vmm: Vmm, name: str, room: int) -> list[Entry]:
    address = vmm.place(s.CPUID2.pack(room, 0) + bytes(min(room, 256) * 40))
    vmm.ioctl(vmm.system, name, address)
    count, _ = vmm.back(address, s.CPUID2)
    return unpack(vmm.memory.read(address + s.CPUID2.size, count * 40))


def supported(vmm: Vmm) -> dict[Leaf, Entry]:
    return {entry.leaf: entry for entry in ask(vmm, "KVM_GET_SUPPORTED_CPUID", 256)}


def test_too_little_room_is_e2big_and_nothing_is_written(vmm: Vmm) -> None:
    needed = len(supported(vmm))
    for room in (0, 1, needed - 1):
        address = vmm.place(s.CPUID2.pack(room, 0) + bytes(room * 40))
        with vmm.fails(errno.E2BIG):
            vmm.ioctl(vmm.system, "KVM_GET_SUPPORTED_CPUID", address)
        assert vmm.memory.read(address, 8 + room * 40) == s.CPUID2.pack(room, 0) + bytes(room * 40)
    assert len(ask(vmm, "KVM_GET_SUPPORTED_CPUID", needed)) == needed


def test_basic_extended_and_hypervisor_leaves_without_gaps(vmm: Vmm, platform: Platform) -> None:
    numbers = {leaf.number for leaf in supported(vmm)}
    assert numbers == {
        *range(platform.maximum_leaf + 1),
        *range(0x80000000, platform.maximum_extended_leaf + 1),
        0x40000000,
        0x40000001,
    }


def test_no_leaf_comes_twice(vmm: Vmm) -> None:
    assert len(supported(vmm)) == len(ask(vmm, "KVM_GET_SUPPORTED_CPUID", 256))


@pytest.mark.parametrize("number", [0x4, 0x7, 0xB, 0xD, 0x14, 0x1D, 0x1E, 0x1F])
def test_an_index_that_counts_is_marked(vmm: Vmm, number: int) -> None:
    assert Leaf(number, 0) in supported(vmm)


# Bits that a feature word has without the processor: emulated by KVM, or added for the guest.
ADDED = {
    (Leaf(1), "ecx"): 1 << 21 | 1 << 24 | 1 << 31,  # X2APIC, TSC_DEADLINE, HYPERVISOR
    (Leaf(7, 0), "ebx"): 1 << 1,  # TSC_ADJUST
    (Leaf(7, 0), "edx"): 1 << 29,  # ARCH_CAPABILITIES
}


@pytest.mark.parametrize(
    ("leaf", "register"),
    [
        (Leaf(1), "ecx"),
        (Leaf(1), "edx"),
        (Leaf(7, 0), "ebx"),
        (Leaf(7, 0), "ecx"),
        (Leaf(7, 0), "edx"),
        (Leaf(7, 1), "eax"),
        (Leaf(0xD, 0), "eax"),
        (Leaf(0xD, 1), "eax"),
        (Leaf(0xD, 1), "ecx"),
        (Leaf(0x80000001), "ecx"),
        (Leaf(0x80000001), "edx"),
    ],
)
def test_features_are_the_processors_or_emulated(vmm: Vmm, platform: Platform, leaf: Leaf, register: str) -> None:
    have = getattr(supported(vmm)[leaf].registers, register)
    added = ADDED.get((leaf, register), 0)
    assert have & added == added
    assert have & ~added & ~getattr(platform.native_leaf(leaf), register) == 0


@pytest.mark.parametrize(
    ("leaf", "register", "bit"),
    [
        (Leaf(1), "ecx", 3),  # MONITOR
        (Leaf(1), "ecx", 5),  # VMX: nested virtualization is off
        (Leaf(1), "ecx", 27),  # OSXSAVE
        (Leaf(1), "edx", 28),  # HTT
        (Leaf(7, 0), "ebx", 25),  # Intel PT
        (Leaf(7, 0), "ecx", 31),  # PKS
        (Leaf(0xD, 0), "eax", 3),  # MPX
        (Leaf(0xD, 1), "ecx", 8),  # PT state
    ],
)
def test_what_kvm_does_not_give_is_masked(vmm: Vmm, leaf: Leaf, register: str, bit: int) -> None:
    assert not getattr(supported(vmm)[leaf].registers, register) >> bit & 1


def test_cache_sub_leaves_end_with_the_first_invalid_one(vmm: Vmm) -> None:
    types = [entry.registers.eax & 0x1F for leaf, entry in supported(vmm).items() if leaf.number == 4]
    assert types[-1] == 0
    assert all(types[:-1])


def test_topology_is_left_to_the_vmm(vmm: Vmm) -> None:
    for number in (0xB, 0x1F):
        assert supported(vmm)[Leaf(number, 0)].registers[:3] == (0, 0, 0)
        assert Leaf(number, 1) not in supported(vmm)


def test_every_supported_state_component_has_its_size(vmm: Vmm, platform: Platform) -> None:
    leaves = supported(vmm)
    states = leaves[Leaf(0xD, 0)].registers.eax | leaves[Leaf(0xD, 1)].registers.ecx
    components = {leaf.subleaf for leaf in leaves if leaf.number == 0xD} - {0, 1}
    assert components == {bit for bit in range(2, 32) if states >> bit & 1}
    for bit in components:
        assert leaves[Leaf(0xD, bit)].registers.eax == platform.native_leaf(Leaf(0xD, bit)).eax > 0


def test_the_xsave_area_holds_the_last_component(vmm: Vmm, platform: Platform) -> None:
    tile_data = platform.native_leaf(Leaf(0xD, 18))
    area = supported(vmm)[Leaf(0xD, 0)].registers
    assert area.ebx == area.ecx == tile_data.ebx + tile_data.eax


def test_the_paravirtual_leaves_are_kvms(vmm: Vmm) -> None:
    leaf, ebx, ecx, edx = supported(vmm)[Leaf(0x40000000)].registers
    assert leaf == 0x40000001
    assert b"".join(word.to_bytes(4, "little") for word in (ebx, ecx, edx)) == b"KVMKVMKVM\0\0\0"
    assert supported(vmm)[Leaf(0x40000001)].registers.eax & 1  # the clock


def test_emulated_leaves_need_room_for_one_more_and_clean_padding(vmm: Vmm) -> None:
    assert [entry.function for entry in ask(vmm, "KVM_GET_EMULATED_CPUID", 4)] == [0, 1, 7]
    with vmm.fails(errno.E2BIG):
        ask(vmm, "KVM_GET_EMULATED_CPUID", 3)
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vmm.system, "KVM_GET_EMULATED_CPUID", vmm.place(s.CPUID2.pack(4, 0) + bytes(28) + b"\1" + bytes(131)))


def test_the_vmms_own_cpuid_instruction_is_the_platforms(vmm: Vmm, platform: Platform) -> None:
    assert vmm.kvm.cpuid(0, 0) == platform.native_leaf(Leaf(0))
    assert vmm.kvm.cpuid(7, 1) == platform.native_leaf(Leaf(7, 1))
    assert vmm.kvm.cpuid(0x40000000, 0) == vmm.kvm.cpuid(platform.maximum_leaf, 0)


def test_the_compacted_area_has_the_user_and_supervisor_states_in_order(vmm: Vmm) -> None:
    # 576 + AVX 256 + AVX-512 64, 512, 1024 + PKRU 8 + CET 16, 24, then, aligned to 64, AMX 64, 8192
    assert supported(vmm)[Leaf(0xD, 1)].registers.ebx == 2496 + 64 + 8192


def test_the_pmu_is_version_2_with_at_most_8_and_3_counters(vmm: Vmm) -> None:
    eax, _, ecx, edx = supported(vmm)[Leaf(0xA)].registers
    assert (eax & 0xFF, eax >> 8 & 0xFF, edx & 0x1F) == (2, 8, 3)
    assert (ecx, edx >> 15 & 1) == (0, 1)  # AnyThread is deprecated


def test_address_widths_are_the_processors_for_host_and_guest(vmm: Vmm, platform: Platform) -> None:
    native = platform.native_leaf(Leaf(0x80000008)).eax
    assert supported(vmm)[Leaf(0x80000008)].registers.eax == native & 0xFFFF | (native & 0xFF) << 16


def changed(platform: Platform, leaf: Leaf, **registers: int) -> Platform:
    native = {**platform.native, leaf: platform.native_leaf(leaf)._replace(**registers)}
    return type(platform)("changed", "", native, tsx_ctrl=True)


def test_leaves_above_what_kvm_knows_are_not_shown(vmm: Vmm, platform: Platform) -> None:
    newer = type(vmm)(vmm.kvm.module, changed(changed(platform, Leaf(0), eax=0x30), Leaf(7, 0), eax=5))
    leaves = supported(newer)
    assert leaves[Leaf(0)].registers.eax == 0x24
    assert max(leaf.number for leaf in leaves if leaf.number < 1 << 30) == 0x24
    assert leaves[Leaf(7, 0)].registers.eax == 2
    assert Leaf(7, 3) not in leaves


@pytest.mark.parametrize(("avx10", "ebx"), [(1 << 19, 0x70001), (0, 0)])
def test_avx10_is_version_1_if_the_processor_has_it(vmm: Vmm, platform: Platform, avx10: int, ebx: int) -> None:
    newer = changed(changed(platform, Leaf(0), eax=0x24), Leaf(0x24, 0), ebx=0x70002)
    newer = changed(newer, Leaf(7, 1), edx=newer.native_leaf(Leaf(7, 1)).edx & ~(1 << 19) | avx10)
    assert supported(type(vmm)(vmm.kvm.module, newer))[Leaf(0x24, 0)].registers == (0, ebx, 0, 0)


def test_without_five_ept_levels_a_guest_addresses_48_bits(vmm: Vmm, platform: Platform) -> None:
    features = platform.native_leaf(Leaf(7, 0)).ecx & ~(1 << 16)
    older = changed(changed(platform, Leaf(7, 0), ecx=features), Leaf(0x80000008), eax=0x3034)
    assert supported(type(vmm)(vmm.kvm.module, older))[Leaf(0x80000008)].registers.eax == 48 << 16 | 48 << 8 | 52
