"""Whatever a process asks, with whatever in its memory: an answer or an errno, and no change unless it succeeds."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin.cpuid import Leaf, Registers
from plugin.kvm.contract import BadAddress, NewFile, Rejected, Reply, Wait
from plugin.kvm.uapi.cpuid import entry
from plugin.kvm.uapi.ioctls import REQUESTS
from plugin.kvm.uapi.structs import CPUID2, TDX_CAPABILITIES, TDX_CMD, TDX_INIT_MEM_REGION
from tests.kvm.device.conftest import Vmm

if TYPE_CHECKING:
    from plugin.kvm.contract import Device
    from plugin.kvm.uapi.ioctls import Request
    from plugin.tdx_module import ModuleVersion, Platform

BASE = 0x7F0000000000
WORDS = st.one_of(st.integers(0, 300), st.integers(0, 1 << 32), st.integers(0, (1 << 64) - 1))
POINTERS = st.one_of(st.integers(BASE, BASE + 8192), st.just(BASE + (1 << 18) - 8), WORDS)
GARBAGE = st.lists(st.one_of(WORDS, POINTERS), max_size=40).map(
    lambda words: b"".join((word % (1 << 64)).to_bytes(8, "little") for word in words)
)
KINDS = ("system", "fresh vm", "td", "vcpu", "plain vcpu")


def devices(vmm: Vmm) -> dict[str, Device]:
    """One descriptor of each kind and state, in order of KINDS."""
    td = vmm.initialised_td()
    vmm.private_memory(td, 0x80000000, 16 * 4096)
    vcpu = vmm.td_vcpu(td)
    vmm.command(vcpu, "INIT_VCPU")
    plain = vmm.open(vmm.open(vmm.system, "KVM_CREATE_VM", 0), "KVM_CREATE_VCPU", 1)
    return dict(zip(KINDS, (vmm.system, vmm.td_vm(), td, vcpu, plain), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_an_answer_or_an_errno_and_no_change_before_commit(vmm: Vmm, kind: str, data: st.DataObject) -> None:
    vmm.start_over()
    found = devices(vmm)
    device = found[kind]
    requests = [row.number for row in REQUESTS if device.kind in row.kinds]
    memory = data.draw(GARBAGE)
    for _ in range(4):
        request = data.draw(st.one_of(st.sampled_from(requests), st.integers(0, (1 << 32) - 1)))
        argument = data.draw(POINTERS)
        vmm.memory.write(BASE, memory.ljust(8192, b"\0"))
        vmm.overtaken(device, request, argument)
        try:
            answer = device.ioctl(request, argument, vmm.memory)
        except (Rejected, BadAddress):
            continue
        assert isinstance(answer, Reply | NewFile | Wait)
        if not isinstance(answer, Wait) and answer.commit is not None:
            answer.commit()


@pytest.mark.parametrize("row", REQUESTS, ids=[row.name for row in REQUESTS])
def test_no_request_leaves_a_trace_when_a_signal_overtakes_its_answer(vmm: Vmm, row: Request) -> None:
    found = devices(vmm)
    zeros, ones = vmm.place(bytes(4096)), vmm.place(b"\1\0\0\0\0\0\0\0" * 512)
    for device in found.values():
        for argument in (0, 3, zeros, ones, 1 << 63):
            vmm.overtaken(device, row.number, argument)


@pytest.mark.parametrize("dialect", ["upstream", "proposal"])
def test_every_sub_command_and_fault_is_spent_by_an_answer_that_arrived(
    module: ModuleVersion, platform: Platform, dialect: str
) -> None:
    """`Vmm` makes each call twice, and lets a signal overtake the first answer."""
    vmm = Vmm(module, platform, dialect, ["entropy=2", "get-cpuid-shrinks", "vcpu-differs=0:0x7.0.ebx[5]"])
    vm = vmm.td_vm()
    vmm.command(vm, "CAPABILITIES", vmm.place(TDX_CAPABILITIES.pack(0, 0, 0, 0, 0, 0, b"", 99, 0) + bytes(99 * 40)))
    for _ in range(2):
        with vmm.fails(errno.EAGAIN):
            vmm.init_vm(vm)
    vmm.init_vm(vm)
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vm)
    vcpu = vmm.open(vm, "KVM_CREATE_VCPU")
    if dialect == "upstream":
        vmm.set_cpuid2(vcpu, [entry(Leaf(1), Registers(ecx=1 << 21))])
        ask = "GET_CPUID", vmm.place(CPUID2.pack(256, 0) + bytes(256 * 40))
    else:
        vmm.command(vm, "GET_CONFIG_CPUID", vmm.place(CPUID2.pack(256, 0) + bytes(256 * 40)))
        ask = "INIT_VCPU_CPUID", vmm.ask([(1, 0, 0, 0), (7, 0, 0, 0)])
    with vmm.fails(errno.E2BIG):
        vmm.command(vcpu, *ask)
    vmm.command(vcpu, *ask)
    vmm.command(vcpu, "INIT_VCPU")
    vmm.private_memory(vm, 0x80000000, 4096)
    vmm.command(vcpu, "INIT_MEM_REGION", vmm.place(TDX_INIT_MEM_REGION.pack(BASE, 0x80000000, 1)))
    vmm.command(vm, "FINALIZE_VM")
    said = [(one["errno"], one["times"], one["overcome"]) for one in vmm.kvm.host.refusals.as_json()]
    assert said == [("EAGAIN", 2, True), ("EINVAL", 1, True), ("E2BIG", 1, True)]
    (td,) = vmm.kvm.host.tds
    assert (td.vcpus, td.finalised) == (1, True)


@given(number=st.integers(0, 7), flags=st.integers(0, 2), hw_error=st.sampled_from([0, 0, 1]), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_any_sub_command_with_any_data(vmm: Vmm, number: int, flags: int, hw_error: int, data: st.DataObject) -> None:
    vmm.start_over()
    found = devices(vmm)
    device = found[data.draw(st.sampled_from(["fresh vm", "td", "vcpu"]))]
    vmm.memory.write(BASE, data.draw(GARBAGE).ljust(8192, b"\0"))
    pointer = data.draw(POINTERS)
    vmm.memory.write(BASE + 16384, TDX_CMD.pack(number, flags, pointer, hw_error))
    vmm.overtaken(device, 0xC008AEBA, BASE + 16384)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_choice_among_what_kvm_shows_makes_a_td_or_fails_in_the_module(
    vmm: Vmm, module: ModuleVersion, data: st.DataObject
) -> None:
    vmm.start_over()
    vm = vmm.td_vm()
    attributes, xfam, shown = vmm.capabilities(vm)
    chosen = []
    for mask, leaf in zip(shown, module.configurable, strict=True):
        if mask.function == 0x80000008:
            registers = Registers(eax=data.draw(st.sampled_from((48, 52))) << 16)
        elif data.draw(st.booleans()):
            registers = Registers(*(data.draw(st.integers(0, 0xFFFFFFFF)) & word for word in mask.registers))
        else:
            continue
        chosen.append(entry(leaf, registers))
    chosen = data.draw(st.permutations(chosen))
    asked = attributes & data.draw(WORDS), xfam & data.draw(WORDS)
    command = vmm.place(TDX_CMD.pack(1, 0, vmm.place(vmm.init_data(chosen, *asked)), 0))
    answer, failure = None, 0
    try:
        answer = vm.ioctl(0xC008AEBA, command, vmm.memory)
    except Rejected as rejected:
        failure = rejected.errno
    hw_error = vmm.back(command, TDX_CMD)[3]
    if answer is None:
        # TDX_OPERAND_INVALID is the VMM's fault; for anything else, such as a malformed topology, KVM says EIO.
        assert (failure, hw_error >> 32) in ((errno.EINVAL, 0xC0000100), (errno.EIO, 0))
        assert vmm.kvm.host.tds == []
        return
    assert hw_error == 0
    assert isinstance(answer, Reply)
    assert answer.commit is not None
    answer.commit()
    (td,) = vmm.kvm.host.tds
    assert (td.attributes, td.xfam, list(td.asked)) == (*asked, chosen)
