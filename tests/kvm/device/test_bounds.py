"""Nothing grows: what an argument sizes is bounded, and what a command leaves behind is given back."""

from __future__ import annotations

import errno
import gc
import weakref
from contextlib import suppress

import pytest

from plugin.kvm.contract import BadAddress, NewFile, Rejected, Reply
from plugin.kvm.device import host as hosts
from plugin.kvm.device import vm as vms
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.ioctls import NUMBERS, served_by
from tests.kvm.device.conftest import BASE, Vmm

PAGE = 4096
MOST = 1 << 20
"""Bytes that one call may move, and so take, at once."""
LARGEST = ((1 << 31) - 1) * PAGE


class Endless:
    """Memory that can be read and written everywhere, full of one pattern."""

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self.written = 0

    def read(self, address: int, size: int) -> bytes:
        assert size <= MOST
        return (self.pattern * (size // len(self.pattern) + 1))[:size]

    def write(self, address: int, data: bytes) -> None:
        assert len(data) <= MOST
        self.written += len(data)


PATTERNS = [b"\xff", b"\x7f", b"\0", b"\x01", b"\0\x10\0\0", b"\0\0\0\0\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"]


@pytest.mark.parametrize("pattern", PATTERNS, ids=bytes.hex)
def test_whatever_an_argument_says_a_call_takes_little_memory(vmm: Vmm, pattern: bytes) -> None:
    vm = vmm.open(vmm.system, "KVM_CREATE_VM")
    for device in (vmm.system, vm, vmm.td_vm(), vmm.initialised_td(), vmm.open(vm, "KVM_CREATE_VCPU")):
        for request in served_by(device.kind):
            for argument in (0, 1, PAGE, (1 << 64) - 1):
                with suppress(Rejected, BadAddress):
                    outcome = device.ioctl(request, argument, Endless(pattern))
                    if isinstance(outcome, Reply | NewFile) and outcome.commit is not None:
                        outcome.commit()


def test_the_dirty_log_of_the_largest_slot_is_written_in_pieces(vmm: Vmm) -> None:
    vm = vmm.open(vmm.system, "KVM_CREATE_VM")
    slot = 0, 1, 0, LARGEST, 0
    vmm.call(vm, "KVM_SET_USER_MEMORY_REGION", s.USERSPACE_MEMORY_REGION, *slot)
    memory = Endless(b"\0")
    assert vm.ioctl(NUMBERS["KVM_GET_DIRTY_LOG"], BASE, memory) == Reply()
    assert memory.written == 1 << 28
    with vmm.fails(errno.EINVAL):
        vmm.call(vm, "KVM_SET_USER_MEMORY_REGION", s.USERSPACE_MEMORY_REGION, 1, 1, 0, 0x7FFFFFFEF000, 0x1000)


def test_eventfds_come_to_an_end(vmm: Vmm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vms, "MAX_EVENTFDS", 3)
    vm = vmm.td_vm()
    for fd in range(3):
        vmm.call(vm, "KVM_IOEVENTFD", s.IOEVENTFD, 0, fd, 4, 7, 0, b"")
        vmm.call(vm, "KVM_IRQFD", s.IRQFD, fd, 5, 0, 0, b"")
    with vmm.fails(errno.ENOSPC):
        vmm.call(vm, "KVM_IOEVENTFD", s.IOEVENTFD, 0, 3, 4, 7, 0, b"")
    with vmm.fails(errno.ENOMEM):
        vmm.call(vm, "KVM_IRQFD", s.IRQFD, 3, 5, 0, 0, b"")
    with vmm.fails(errno.EBUSY):  # an eventfd is for one interrupt
        vmm.call(vm, "KVM_IRQFD", s.IRQFD, 0, 6, 0, 0, b"")
    vmm.call(vm, "KVM_IRQFD", s.IRQFD, 0, 6, 1, 0, b"")  # which is not this one: nothing happens
    vmm.call(vm, "KVM_IRQFD", s.IRQFD, 0, 5, 1, 0, b"")
    vmm.call(vm, "KVM_IRQFD", s.IRQFD, 3, 5, 0, 0, b"")


def test_of_many_tds_the_last_are_remembered_and_a_closed_vm_is_gone(vmm: Vmm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "KEPT_TDS", 4)
    left = []
    for _ in range(7):
        vm = vmm.initialised_td()
        vmm.td_vcpu(vm)
        left.append(weakref.ref(vm))
        vmm.devices.clear()
        vmm._used = 0
    host = vmm.kvm.host
    assert len(host.tds) == 4
    assert vmm.kvm.record()["tds-forgotten"] == 3
    assert host.tds[-1].vcpus == 1
    del vm
    gc.collect()
    assert [one() for one in left] == [None] * len(left)


def test_warnings_come_to_an_end(vmm: Vmm) -> None:
    for request in range(2 * hosts.KEPT_WARNINGS):
        with suppress(Rejected):
            vmm.system.ioctl(0xFF00AE00 + (request << 16), 0, vmm.memory)
        rejected = vmm.kvm.host.warnings.unknown("vm", 0xAEFF + (request << 16))
        if rejected.commit is not None:
            rejected.commit()
    assert len(vmm.warnings) == hosts.KEPT_WARNINGS
    assert "nothing is said" in vmm.warnings[-1]
