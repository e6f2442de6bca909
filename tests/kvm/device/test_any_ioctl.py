"""Whatever a process asks, with whatever in its memory: an answer or an errno, and no change unless it succeeds."""

from __future__ import annotations

import copy
import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin.cpuid import Registers
from plugin.kvm.contract import BadAddress, NewFile, Rejected, Reply, Wait
from plugin.kvm.uapi.cpuid import entry
from plugin.kvm.uapi.ioctls import REQUESTS
from plugin.kvm.uapi.structs import TDX_CMD

if TYPE_CHECKING:
    from plugin.kvm.contract import Device
    from plugin.tdx_module import ModuleVersion
    from tests.kvm.device.conftest import Vmm

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


ELSEWHERE = ("kvm", "vm", "warnings", "shared")  # what a device refers to; the VM is looked at by itself


def remembered(thing: object) -> object:
    """What an object of the device layer holds, as plain values."""
    if isinstance(thing, dict):
        return {key: remembered(value) for key, value in thing.items()}
    if isinstance(thing, list | set):
        return copy.copy(thing)
    if isinstance(thing, tuple) or not type(thing).__module__.startswith("plugin.kvm.device"):
        return thing
    names = getattr(type(thing), "__slots__", None) or vars(thing)
    return {name: remembered(getattr(thing, name)) for name in names if name not in ELSEWHERE}


def state(vmm: Vmm, found: dict[str, Device]) -> list[object]:
    """Everything that the devices and the record remember."""
    return [remembered(device) for device in found.values()] + [remembered(td) for td in vmm.kvm.host.tds]


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
        before = state(vmm, found)
        try:
            answer = device.ioctl(request, argument, vmm.memory)
        except (Rejected, BadAddress):
            assert state(vmm, found) == before
            continue
        assert isinstance(answer, Reply | NewFile | Wait)
        assert state(vmm, found) == before
        if not isinstance(answer, Wait) and answer.commit is not None:
            answer.commit()


@given(number=st.integers(0, 7), flags=st.integers(0, 2), hw_error=st.sampled_from([0, 0, 1]), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_any_sub_command_with_any_data(vmm: Vmm, number: int, flags: int, hw_error: int, data: st.DataObject) -> None:
    vmm.start_over()
    found = devices(vmm)
    device = found[data.draw(st.sampled_from(["fresh vm", "td", "vcpu"]))]
    vmm.memory.write(BASE, data.draw(GARBAGE).ljust(8192, b"\0"))
    pointer = data.draw(POINTERS)
    vmm.memory.write(BASE + 16384, TDX_CMD.pack(number, flags, pointer, hw_error))
    before = state(vmm, found)
    try:
        device.ioctl(0xC008AEBA, BASE + 16384, vmm.memory)
    except (Rejected, BadAddress):
        assert state(vmm, found) == before


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
