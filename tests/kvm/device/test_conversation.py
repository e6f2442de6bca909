"""A recorded conversation says what was said: the same calls, with and without a recorder in between."""

from __future__ import annotations

import errno
import io
import json
from typing import Any

import pytest

from plugin.cpuid import Leaf, Registers
from plugin.kvm.conversation.decode import fields
from plugin.kvm.conversation.recorder import SCHEMA, RecordedKvm, Recorder
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.capabilities import NUMBERS as CAPABILITIES
from plugin.kvm.uapi.cpuid import entry
from tests.kvm.device.conftest import WIDTH_48, Vmm


@pytest.fixture
def record(vmm: Vmm) -> io.StringIO:
    """Put a recorder between the VMM and its KVM."""
    out = io.StringIO()
    system = RecordedKvm(vmm.kvm, Recorder(out, {"argv": ["vmm"]})).open()
    assert system.handler is not None and system.commit is not None
    system.commit()
    vmm.system = system.handler
    return out


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_td_from_the_first_call_to_the_last(vmm: Vmm, record: io.StringIO) -> None:
    entries = [entry(Leaf(0x80000008), WIDTH_48), entry(Leaf(7, 0), Registers(ebx=1 << 19))]
    vm = vmm.td_vm()
    attributes, xfam, configurable = vmm.capabilities(vm)
    vmm.init_vm(vm, vmm.init_data(entries, attributes=1 << 28, xfam=0x3))
    vcpu = vmm.td_vcpu(vm)
    got = vmm.get_cpuid(vcpu)
    head, *calls = lines(record)
    assert head == {"schema": SCHEMA, "argv": ["vmm"]}
    assert [call["n"] for call in calls] == list(range(1, len(calls) + 1))
    assert [(call["on"], call["call"]) for call in calls] == [
        ("/dev/kvm", "open"),
        ("system-0", "KVM_CREATE_VM"),
        ("vm-0", "KVM_ENABLE_CAP"),
        ("vm-0", "KVM_MEMORY_ENCRYPT_OP"),
        ("vm-0", "KVM_MEMORY_ENCRYPT_OP"),
        ("vm-0", "KVM_CREATE_VCPU"),
        ("vcpu-0", "KVM_SET_CPUID2"),
        ("vcpu-0", "KVM_MEMORY_ENCRYPT_OP"),
    ]
    by = {call["in"].get("command", call["call"]): call for call in calls if "in" in call}
    assert by["KVM_CREATE_VM"]["in"] == {"argument": 5, "type": "KVM_X86_TDX_VM"}
    assert by["KVM_CREATE_VM"]["new"] == "vm-0"
    assert by["KVM_ENABLE_CAP"]["in"]["cap"] == "KVM_CAP_SPLIT_IRQCHIP"
    offered = by["KVM_TDX_CAPABILITIES"]
    assert offered["in"] == {"command": "KVM_TDX_CAPABILITIES", "cpuid_nent": 256}
    assert (offered["out"]["supported_attrs"], offered["out"]["supported_xfam"]) == (attributes, xfam)
    assert [(e["leaf"], e.get("index", 0), e["ebx"]) for e in offered["out"]["entries"]] == [
        (e.function, e.subleaf, e.registers.ebx) for e in configurable
    ]
    asked = by["KVM_TDX_INIT_VM"]["in"]
    assert (asked["attributes"], asked["xfam"]) == (1 << 28, 0x3)
    assert asked["entries"] == [e.as_json() for e in entries]
    assert by["KVM_TDX_GET_CPUID"]["out"]["entries"] == [e.as_json() for e in got]


def test_what_fails_is_recorded_with_its_reason(vmm: Vmm, record: io.StringIO) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.open(vmm.system, "KVM_CREATE_VM", 9)
    with vmm.fails(errno.EFAULT):
        vmm.ioctl(vmm.system, "KVM_GET_SUPPORTED_CPUID", 0x10)
    with vmm.fails(errno.E2BIG):
        vmm.ioctl(vmm.system, "KVM_GET_MSR_INDEX_LIST", vmm.place(s.MSR_LIST.pack(0)))
    _, _, vm, cpuid, msrs = lines(record)
    assert (vm["errno"], vm["in"]) == ("EINVAL", {"argument": 9})
    assert "VM type 9" in vm["why"]
    assert cpuid["errno"] == "EFAULT"
    assert "unreadable" in cpuid["in"]
    assert (msrs["errno"], "result" in msrs) == ("E2BIG", False)


def test_a_reply_that_the_kernel_did_not_take_is_not_recorded(vmm: Vmm, record: io.StringIO) -> None:
    """A signal may overtake it: then the VMM calls again, and saw one answer."""
    vmm.answer(vmm.system, 0xAE00, 0)
    assert len(lines(record)) == 2
    vmm.ioctl(vmm.system, "KVM_GET_API_VERSION")
    assert lines(record)[-1] == {"n": 2, "on": "system-0", "call": "KVM_GET_API_VERSION", "result": 12}


def test_capabilities_msrs_and_unknown_requests(vmm: Vmm, record: io.StringIO) -> None:
    vmm.ioctl(vmm.system, "KVM_CHECK_EXTENSION", CAPABILITIES["VM_TYPES"])
    address = vmm.place(s.MSRS.pack(1, 0) + s.MSR_ENTRY.pack(0x10A, 0, 0))
    vmm.ioctl(vmm.system, "KVM_GET_MSRS", address)
    with vmm.fails(errno.ENOTTY):
        vmm.answer(vmm.system, 0xAEFF, 3)
    _, _, extension, msrs, unknown = lines(record)
    assert extension["in"] == {"capability": "KVM_CAP_VM_TYPES"}
    assert extension["result"] & 1 << 5
    assert msrs["in"]["entries"] == [{"index": 0x10A}]
    assert msrs["out"]["entries"] == [{"index": 0x10A, "data": s.MSR_ENTRY.unpack(vmm.memory.read(address + 8, 16))[2]}]
    assert (unknown["call"], unknown["in"]) == ("ioctl 0x0000aeff", {"argument": 3})


def test_registers_have_names(vmm: Vmm, record: io.StringIO) -> None:
    vcpu = vmm.open(vmm.open(vmm.system, "KVM_CREATE_VM", 0), "KVM_CREATE_VCPU", 0)
    sregs = bytearray(s.SREGS.size)
    sregs[0:8], sregs[224:232] = (0xFFFF0000).to_bytes(8, "little"), (0x10).to_bytes(8, "little")
    vmm.ioctl(vcpu, "KVM_SET_SREGS", vmm.place(bytes(sregs)))
    vmm.ioctl(vcpu, "KVM_SET_REGS", vmm.place((2).to_bytes(8, "little", signed=False).rjust(144, b"\0")))
    vmm.ioctl(vcpu, "KVM_GET_SREGS", vmm.place(bytes(s.SREGS.size)))
    *_, said, general, read = lines(record)
    assert said["in"] == {"cs": {"base": 0xFFFF0000}, "cr0": 0x10}
    assert general["in"] == {"rflags": 2}
    assert read["out"] == said["in"]


def test_fields() -> None:
    packed = s.ENABLE_CAP.pack(121, 0, bytes([24]), b"")
    assert fields(s.ENABLE_CAP, packed) == {"cap": 121, "flags": 0, "args": "18"}
    assert fields(s.CPUID2, s.CPUID2.pack(3, 7)) == {"nent": 3, "padding": 7}, "padding that is not 0 is worth a look"
