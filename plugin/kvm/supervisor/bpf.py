"""The seccomp filter: which system calls of the command the supervisor sees, and which nobody answers.

The supervisor sees all that opens a file by name, every ioctl whose request carries KVM's type byte 0xAE, and the
request for a guest's dynamic XSAVE states, which the kernel grants by what this machine's processor has. Refused are
the ways to a file that would pass it by: io_uring, which opens files in the kernel's own threads (EPERM, as under
/proc/sys/kernel/io_uring_disabled = 2), and opening by file handle (EPERM, as without CAP_DAC_READ_SEARCH). The same
holds for 32-bit calls, except that KVM's ioctls fail there (ENOTTY). Everything else runs at full speed. A filter
cannot follow pointers, so it cannot tell /dev/kvm from other names; an ioctl's request is in a register, so no KVM
request gets past it, on whatever descriptor (docs/no-way-to-the-real-device.md).
"""

from __future__ import annotations

import errno
import struct

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
X32_BIT = 0x40000000

SYS_OPEN = 2
SYS_IOCTL = 16
SYS_CREAT = 85
SYS_ARCH_PRCTL = 158
SYS_OPENAT = 257
SYS_OPENAT2 = 437
_SYS_OPEN_BY_HANDLE_AT = 304
_IO_URING = (425, 426, 427)  # setup, enter and register, with one number for all of x86

OPENS_OF_I386 = {5: SYS_OPEN, 8: SYS_CREAT, 295: SYS_OPENAT, SYS_OPENAT2: SYS_OPENAT2}
"""The 32-bit numbers of what opens a file, as the 64-bit calls that take the same arguments."""
_I386_IOCTL = 54
_I386_OPEN_BY_HANDLE_AT = 342

SYS_IOCTL_X32 = 514  # x32 has an ioctl number of its own; its opens are the 64-bit numbers with X32_BIT

KVMIO = 0xAE
ARCH_REQ_XCOMP_GUEST_PERM = 0x1025

RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000

# Byte offsets in struct seccomp_data.
_NUMBER, _ARCH, _ARGUMENT_0_LOW, _ARGUMENT_1_LOW = 0, 4, 16, 24

_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06


class Program:
    """A classic BPF program under construction; jumps go forward to labels."""

    __slots__ = ("_labels", "_lines")

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, str]] = []  # code, constant, label to go to when equal
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Name the next instruction."""
        self._labels[name] = len(self._lines)

    def load(self, offset: int) -> None:
        """A = 32 bits of struct seccomp_data."""
        self._lines.append((_LOAD, offset, ""))

    def mask(self, bits: int) -> None:
        """A &= bits."""
        self._lines.append((_AND, bits, ""))

    def if_equal(self, value: int, label: str) -> None:
        """Go to `label` when A == value, else to the next instruction."""
        self._lines.append((_JUMP_IF_EQUAL, value, label))

    def give(self, verdict: int) -> None:
        """End with a SECCOMP_RET_ value."""
        self._lines.append((_RETURN, verdict, ""))

    def assemble(self) -> bytes:
        """Return the program as an array of struct sock_filter."""
        return b"".join(
            struct.pack("<HBBI", code, self._labels[label] - here - 1 if label else 0, 0, constant)
            for here, (code, constant, label) in enumerate(self._lines)
        )


def kvm_filter() -> bytes:
    """Assemble the filter described above."""
    program = Program()
    program.load(_ARCH)
    program.if_equal(AUDIT_ARCH_X86_64, "x86_64")
    program.if_equal(AUDIT_ARCH_I386, "i386")
    program.give(RET_ERRNO | errno.ENOSYS)

    program.label("x86_64")
    program.load(_NUMBER)
    program.mask(0xFFFFFFFF ^ X32_BIT)
    for number in (SYS_IOCTL, SYS_IOCTL_X32):
        program.if_equal(number, "ioctl")
    for number in (SYS_OPENAT, SYS_OPEN, SYS_OPENAT2, SYS_CREAT):
        program.if_equal(number, "notify")
    program.if_equal(SYS_ARCH_PRCTL, "arch_prctl")
    for number in (*_IO_URING, _SYS_OPEN_BY_HANDLE_AT):
        program.if_equal(number, "forbid")
    program.give(RET_ALLOW)

    program.label("i386")
    program.load(_NUMBER)
    program.if_equal(_I386_IOCTL, "i386_ioctl")
    for number in OPENS_OF_I386:
        program.if_equal(number, "notify")
    for number in (*_IO_URING, _I386_OPEN_BY_HANDLE_AT):
        program.if_equal(number, "forbid")
    program.give(RET_ALLOW)

    program.label("ioctl")
    program.load(_ARGUMENT_1_LOW)
    program.mask(0xFF00)
    program.if_equal(KVMIO << 8, "notify")
    program.give(RET_ALLOW)

    program.label("i386_ioctl")
    program.load(_ARGUMENT_1_LOW)
    program.mask(0xFF00)
    program.if_equal(KVMIO << 8, "no_ioctl")
    program.give(RET_ALLOW)

    program.label("arch_prctl")
    program.load(_ARGUMENT_0_LOW)
    program.if_equal(ARCH_REQ_XCOMP_GUEST_PERM, "notify")
    program.give(RET_ALLOW)

    program.label("notify")
    program.give(RET_USER_NOTIF)
    program.label("forbid")
    program.give(RET_ERRNO | errno.EPERM)
    program.label("no_ioctl")
    program.give(RET_ERRNO | errno.ENOTTY)
    return program.assemble()
