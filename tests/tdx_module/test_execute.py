"""CPUID as the guest executes it."""

from __future__ import annotations

import pytest

from plugin.cpuid import Leaf, Registers
from plugin.tdx_module import (
    Controls,
    ModuleVersion,
    Platform,
    Td,
    TdParams,
    VcpuState,
    VirtualizationException,
    init_td,
    load_module,
)


@pytest.fixture
def td(module: ModuleVersion, platform: Platform) -> Td:
    tsx = {Leaf(7, 0): Registers(ebx=1 << 4 | 1 << 11)}
    return init_td(module, platform, TdParams(0, module.xfam_supported(platform), tsx))


ENUMERATES = VcpuState(controls=Controls(frozenset({"ENUM_TOPOLOGY"})))


def run(td: Td, leaf: int, subleaf: int = 0, vcpu: VcpuState = ENUMERATES) -> Registers:
    answer = td.execute(leaf, subleaf, vcpu)
    assert isinstance(answer, Registers)
    return answer


def test_apic_id(td: Td) -> None:
    vcpu = ENUMERATES._replace(apic_id=0x105, vcpu_index=0x207)
    assert run(td, 1, 0, vcpu).ebx >> 24 == 0x05
    assert run(td, 0xB, 0, vcpu).edx == 0x105
    assert run(td, 0x1F, 1, vcpu).edx == 0x105
    assert run(td, 1, 0, vcpu._replace(controls=Controls())).ebx >> 24 == 0x07


def test_control_register_bits(td: Td) -> None:
    assert run(td, 1, 0, VcpuState(osxsave=True)).ecx >> 27 & 1 == 1
    assert run(td, 1, 0, VcpuState(osxsave=False)).ecx >> 27 & 1 == 0
    assert run(td, 7, 0, VcpuState(pke=True)).ecx >> 4 & 1 == 1
    assert run(td, 7, 0, VcpuState(pke=False)).ecx >> 4 & 1 == 0


def test_tsx_can_be_hidden_by_the_guest(td: Td) -> None:
    both = 1 << 4 | 1 << 11
    assert run(td, 7).ebx & both == both
    assert run(td, 7, 0, VcpuState(tsx_cpuid_clear=True)).ebx & both == 0


def test_current_xsave_sizes(td: Td) -> None:
    avx512 = VcpuState(xcr0=0xE7)
    assert run(td, 0xD, 0, avx512).ebx == 0x680 + 0x400
    # Compacted: 576 + AVX 256 + opmask 64 + ZMM 512 + 1024, then CET user 16 and supervisor 24.
    assert run(td, 0xD, 1, avx512).ebx == 576 + 256 + 64 + 512 + 1024
    assert run(td, 0xD, 1, avx512._replace(xss=0x1800)).ebx == 2432 + 16 + 24
    # PKRU ends at 2440; the tile configuration starts at the next 64-byte boundary, tile data right after.
    assert run(td, 0xD, 1, VcpuState(xcr0=0x602E7)).ebx == 2496 + 64 + 8192


def test_syscall_only_in_long_mode(td: Td) -> None:
    assert run(td, 0x80000001, 0, VcpuState(long_mode=True)).edx >> 11 & 1 == 1
    assert run(td, 0x80000001, 0, VcpuState(long_mode=False)).edx >> 11 & 1 == 0


def test_other_leaves_answer_what_is_stored(td: Td) -> None:
    for leaf in td.cpuid:
        if leaf.number not in (0x1, 0x7, 0xB, 0xD, 0x1F, 0x80000001):
            assert run(td, leaf.number, leaf.subleaf or 0) == td.read(leaf)


def test_a_leaf_without_subleaves_ignores_ecx(td: Td) -> None:
    assert run(td, 0x15, 99) == td.read(Leaf(0x15))
    assert td.read(Leaf(0x15, 99)) == td.read(Leaf(0x15))
    assert td.read(Leaf(7)) is None


@pytest.mark.parametrize(
    ("leaf", "subleaf"), [(0x2, 0), (0x6, 0), (0x80000002, 0), (0x40000000, 0), (0x4FFFFFFF, 0), (7, 3), (0x4, 5)]
)
def test_everything_else_raises_ve(td: Td, leaf: int, subleaf: int) -> None:
    assert td.execute(leaf, subleaf, VcpuState()) == VirtualizationException(leaf, subleaf, 10)


def test_above_the_maximum_is_the_highest_basic_leaf(td: Td) -> None:
    top = td.read(Leaf(0))
    assert top is not None
    assert top.eax == 0x23
    for leaf in (0x24, 0x3FFFFFFF, 0x50000000, 0x7FFFFFFF, 0x80000009, 0xFFFFFFFF):
        assert run(td, leaf, 1) == td.read(Leaf(0x23, 1))
        assert td.execute(leaf, 9, VcpuState()) == VirtualizationException(leaf, 9)


def test_topology_enumeration_can_be_off(td: Td) -> None:
    vcpu = VcpuState()
    assert td.execute(0xB, 0, vcpu) == VirtualizationException(0xB, 0)
    assert td.execute(0x1F, 0, vcpu) == VirtualizationException(0x1F, 0)


def test_1_0_has_a_lower_maximum(platform: Platform) -> None:
    first = load_module("1.0")
    td = init_td(first, platform, TdParams(0, 3, {}))
    assert run(td, 0x23, 0) == td.read(Leaf(0x21, 0))


def test_a_guest_can_force_ve_for_its_kernel_and_its_programs(td: Td) -> None:
    for controls, modes in (
        (Controls(), []),
        (Controls(supervisor_ve=True), [False]),
        (Controls(user_ve=True), [True]),
        (Controls(supervisor_ve=True, user_ve=True), [False, True]),
    ):
        raising = [
            user
            for user in (False, True)
            if isinstance(td.execute(0, 0, VcpuState(controls=controls, user_mode=user)), VirtualizationException)
        ]
        assert raising == modes


@pytest.mark.parametrize("version", ["1.0", "1.5.01"])
def test_an_older_module_enumerates_no_topology(version: str, platform: Platform) -> None:
    td = init_td(load_module(version), platform, TdParams(0, 3, {}))
    for leaf in (0xB, 0x1F):
        assert td.execute(leaf, 0, ENUMERATES) == VirtualizationException(leaf, 0)
    assert run(td, 1, 0, ENUMERATES._replace(apic_id=9, vcpu_index=4)).ebx >> 24 == 4
