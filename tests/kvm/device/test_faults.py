"""Injected faults: each does what it says, and what KVM would have refused stays refused."""

from __future__ import annotations

import errno

import pytest

from plugin.cpuid import Bit, Leaf, Registers
from plugin.kvm.contract import Device
from plugin.kvm.device import SimulatedKvm
from plugin.kvm.dialects.faults import OPERANDS, Faults, UnknownFault, parse_bit
from plugin.kvm.uapi import proposal as p
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, entry
from plugin.tdx_module import ModuleVersion, Platform, TdxHost
from tests.kvm.device.conftest import COMMANDS, Vmm

DIALECTS = ["upstream", "proposal"]
EVERYTHING = [(first + number, 0, 0, 0) for first in (0, 0x80000000) for number in range(0x80)]
AVX2 = Bit(Leaf(7, 0), "ebx", 5)


def read_back(vmm: Vmm, vcpu: Device) -> list[Entry]:
    """All leaves, with as much room as KVM asks for."""
    if vmm.kvm.host.tdx.interface == "upstream":
        return vmm.get_cpuid(vcpu)
    return vmm.init_vcpu_cpuid(vcpu, EVERYTHING)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Host:
    """Makes VMMs on a host with faults."""

    def __init__(self, module: ModuleVersion, platform: Platform, dialect: str) -> None:
        self._is = module, platform, dialect

    def __call__(self, *faults: str) -> Vmm:
        return Vmm(*self._is, faults)


@pytest.fixture
def host(module: ModuleVersion, platform: Platform, dialect: str) -> Host:
    return Host(module, platform, dialect)


@pytest.mark.parametrize("times", [1, 3])
def test_entropy_comes_back_after_n_times(host: Host, times: int) -> None:
    vmm = host(f"entropy={times}")
    vm = vmm.td_vm()
    for _ in range(times):
        with vmm.fails(errno.EAGAIN):
            vmm.init_vm(vm)
    vmm.init_vm(vm)
    (refused,) = vmm.kvm.host.refusals.as_json()
    assert (refused["errno"], refused["times"], refused["overcome"]) == ("EAGAIN", times, True)


def test_entropy_never_comes_back_by_default(host: Host) -> None:
    vmm = host("entropy")
    vm = vmm.td_vm()
    for _ in range(20):
        with vmm.fails(errno.EAGAIN):
            vmm.init_vm(vm)
    assert vmm.kvm.host.refusals.as_json()[-1]["overcome"] is False


def test_only_init_vm_needs_entropy(host: Host) -> None:
    vmm = host("entropy", "init-vm=XFAM")
    assert vmm.capabilities(vmm.td_vm())[0]


def test_what_kvm_refuses_anyway_is_refused_for_its_own_reason(host: Host) -> None:
    vmm = host("entropy", "init-vm=XFAM")
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([]))
    assert "0x80000008" in vmm.kvm.host.refusals.as_json()[-1]["why"]


@pytest.mark.parametrize("operand", OPERANDS)
def test_the_module_refuses_with_the_operands_status(host: Host, operand: str) -> None:
    vmm = host(f"init-vm={operand}")
    address = vmm.place(s.TDX_CMD.pack(COMMANDS["INIT_VM"], 0, vmm.place(vmm.init_data()), 0))
    invalid = OPERANDS[operand] >> 32 == 0xC0000100
    with vmm.fails(errno.EINVAL if invalid else errno.EIO):
        vmm.ioctl(vmm.td_vm(), "KVM_MEMORY_ENCRYPT_OP", address)
    assert vmm.back(address, s.TDX_CMD)[3] == (OPERANDS[operand] if invalid else 0)
    assert operand in vmm.kvm.host.refusals.as_json()[-1]["why"]
    assert not vmm.kvm.host.tds, "no TD has been made"


def test_the_refused_leaf_is_named(host: Host) -> None:
    vmm = host("init-vm=CPUID_CONFIG:0x7.1")
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm())
    assert "0x7.1" in vmm.kvm.host.refusals.as_json()[-1]["why"]


def test_reading_back_asks_for_room_and_then_shrinks(host: Host) -> None:
    vmm = host("get-cpuid-shrinks")
    vcpu = vmm.open(vmm.initialised_td(), "KVM_CREATE_VCPU")
    healthy = host()
    whole = read_back(healthy, healthy.open(healthy.initialised_td(), "KVM_CREATE_VCPU"))
    upstream = vmm.kvm.host.tdx.interface == "upstream"
    address = vmm.place(s.CPUID2.pack(256, 0) + bytes(256 * 40)) if upstream else vmm.ask(EVERYTHING)
    with vmm.fails(errno.E2BIG):
        vmm.command(vcpu, "GET_CPUID" if upstream else "INIT_VCPU_CPUID", address)
    nent = address if upstream else address + p.TDX_INIT_VCPU_CPUID_HEAD.offset("cpuid_nent")
    assert vmm.back(nent, s.CPUID2) == (len(whole), 0), "nent is the number needed"
    assert read_back(vmm, vcpu) == whole[:-1]
    assert read_back(vmm, vcpu) == whole[:-2]


def test_one_vcpu_differs_in_one_bit(host: Host) -> None:
    vmm = host(f"vcpu-differs=1:{AVX2}")
    vm = vmm.initialised_td()
    same, other = (read_back(vmm, vmm.open(vm, "KVM_CREATE_VCPU", number)) for number in (0, 1))
    differing = [(a, b) for a, b in zip(same, other, strict=True) if a != b]
    ((a, b),) = differing
    assert a.leaf == AVX2.leaf
    assert a.registers ^ b.registers == Registers(ebx=1 << 5)


@pytest.mark.parametrize(
    "text",
    ["", "entropi", "entropy=0", "entropy=x", "init-vm", "init-vm=TDCS", "init-vm=XFAM:0x7.0", "init-vm=CPUID_CONFIG:x",
     "get-cpuid-shrinks=1", "vcpu-differs", "vcpu-differs=1", "vcpu-differs=x:0x7.0.ebx[5]", "vcpu-differs=1:0x7.0.ebx",
     "vcpu-differs=1:0x7.0.rbx[5]", "vcpu-differs=1:0x7.0.ebx[32]"],
)  # fmt: skip
def test_a_wrong_specification_is_quoted(text: str, module: ModuleVersion, platform: Platform) -> None:
    with pytest.raises(UnknownFault, match="--fault") as raised:
        SimulatedKvm(TdxHost(module, platform), faults=[text])
    assert text in str(raised.value)


def test_a_bit_is_read_as_it_is_printed() -> None:
    assert parse_bit(str(AVX2)) == AVX2
    assert Faults([f"vcpu-differs=2:{AVX2}"]).flipped == {2: [AVX2]}


def test_refusals_are_counted_and_the_last_ones_kept(module: ModuleVersion, platform: Platform) -> None:
    vmm = Vmm(module, platform)
    vm = vmm.td_vm()
    for number in range(20):
        with vmm.fails(errno.EINVAL):
            vmm.init_vm(vm, vmm.init_data([entry(Leaf(0x80000008), Registers(eax=number << 16))]))
    kept = vmm.kvm.host.refusals.as_json()
    assert len(kept) == 16
    assert "is 19;" in kept[-1]["why"]
