"""Asking KVM what it offers TDs: the calls of a VMM that goes no further. Opens the device that it is given."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from typing import NamedTuple

from plugin.cpuid import Cpuid, Leaf
from plugin.kvm.uapi import capabilities
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, unpack
from plugin.kvm.uapi.ioctls import NUMBERS

ROOM = 256
"""KVM gives no more CPUID entries than that."""


class NoTdx(Exception):
    """KVM offers no TDs; the message says at which call that showed."""


class Offer(NamedTuple):
    """KVM_TDX_CAPABILITIES and KVM_GET_SUPPORTED_CPUID. ATTRIBUTES and XFAM are 64-bit masks."""

    attributes: int
    xfam: int
    configurable: tuple[Entry, ...]
    supported: tuple[Entry, ...]


def ask(device: str = "/dev/kvm") -> Offer:
    """Ask KVM. A TD is created for it and given back at once. Raises NoTdx."""
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NoTdx(f"{device} cannot be opened: {error.strerror}") from error
    try:
        types = fcntl.ioctl(kvm, NUMBERS["KVM_CHECK_EXTENSION"], capabilities.NUMBERS["VM_TYPES"])
        if not types >> c.X86_TDX_VM & 1:
            raise NoTdx(f"KVM_CAP_VM_TYPES is {types:#x}: no TDs (bit {c.X86_TDX_VM})")
        vm = fcntl.ioctl(kvm, NUMBERS["KVM_CREATE_VM"], c.X86_TDX_VM)
        try:
            attributes, xfam, configurable = _tdx_capabilities(vm)
        finally:
            os.close(vm)
        return Offer(attributes, xfam, configurable, _supported(kvm))
    except OSError as error:
        raise NoTdx(f"KVM refuses a TD: {error.strerror}") from error
    finally:
        os.close(kvm)


def _tdx_capabilities(vm: int) -> tuple[int, int, tuple[Entry, ...]]:
    head = s.TDX_CAPABILITIES
    asked = head.pack(0, 0, 0, 0, 0, 0, b"", ROOM, 0)
    buffer = ctypes.create_string_buffer(asked, head.size + ROOM * s.CPUID_ENTRY2.size)
    command = bytearray(s.TDX_CMD.pack(c.TDX_CAPABILITIES, 0, ctypes.addressof(buffer), 0))
    fcntl.ioctl(vm, NUMBERS["KVM_MEMORY_ENCRYPT_OP"], command)
    attributes, xfam, *_, count, _ = head.unpack(buffer.raw)
    return attributes, xfam, tuple(unpack(buffer.raw[head.size : head.size + count * s.CPUID_ENTRY2.size]))


def _supported(kvm: int) -> tuple[Entry, ...]:
    size = s.CPUID_ENTRY2.size
    buffer = bytearray(s.CPUID2.pack(ROOM, 0) + bytes(ROOM * size))
    try:
        fcntl.ioctl(kvm, NUMBERS["KVM_GET_SUPPORTED_CPUID"], buffer)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        return ()
    count, _ = s.CPUID2.unpack(bytes(buffer))
    return tuple(unpack(bytes(buffer[s.CPUID2.size : s.CPUID2.size + count * size])))


def by_leaf(entries: tuple[Entry, ...]) -> Cpuid:
    """The entries' values; an index counts only where it is flagged."""
    return {entry.leaf: entry.registers for entry in entries}


def masks(entries: tuple[Entry, ...]) -> Cpuid:
    """What is configurable, by leaf and index: KVM flags none of these."""
    return {Leaf(entry.function, entry.subleaf): entry.registers for entry in entries}
