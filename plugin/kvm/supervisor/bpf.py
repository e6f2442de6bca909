"""The seccomp filter: which system calls of the command the supervisor sees.

All that opens a file by name, every ioctl whose request carries KVM's type byte 0xAE, and the request for a
guest's dynamic XSAVE states, which the kernel grants by what this machine's processor has. Everything else runs
at full speed. A filter cannot follow pointers, so it cannot tell /dev/kvm from other names.
"""

from __future__ import annotations

import struct

AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000

SYS_OPEN = 2
SYS_IOCTL = 16
SYS_ARCH_PRCTL = 158
SYS_OPENAT = 257
SYS_OPENAT2 = 437
SYS_IOCTL_X32 = 514  # x32 has an ioctl number of its own; its opens are the 64-bit numbers with X32_BIT

KVMIO = 0xAE
ARCH_REQ_XCOMP_GUEST_PERM = 0x1025

RET_ALLOW = 0x7FFF0000
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
    """Assemble the filter described above. 32-bit (i386) calls are let through: no VMM of interest makes them."""
    program = Program()
    program.load(_ARCH)
    program.if_equal(AUDIT_ARCH_X86_64, "x86_64")
    program.give(RET_ALLOW)

    program.label("x86_64")
    program.load(_NUMBER)
    program.mask(0xFFFFFFFF ^ X32_BIT)
    for number in (SYS_IOCTL, SYS_IOCTL_X32):
        program.if_equal(number, "ioctl")
    for number in (SYS_OPENAT, SYS_OPEN, SYS_OPENAT2):
        program.if_equal(number, "notify")
    program.if_equal(SYS_ARCH_PRCTL, "arch_prctl")
    program.give(RET_ALLOW)

    program.label("ioctl")
    program.load(_ARGUMENT_1_LOW)
    program.mask(0xFF00)
    program.if_equal(KVMIO << 8, "notify")
    program.give(RET_ALLOW)

    program.label("arch_prctl")
    program.load(_ARGUMENT_0_LOW)
    program.if_equal(ARCH_REQ_XCOMP_GUEST_PERM, "notify")
    program.give(RET_ALLOW)

    program.label("notify")
    program.give(RET_USER_NOTIF)
    return program.assemble()
