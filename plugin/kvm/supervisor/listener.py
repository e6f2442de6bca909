"""The supervisor's end of seccomp user notification (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from plugin.kvm.supervisor.bpf import AUDIT_ARCH_I386
from plugin.typing import NamedTuple

_RECV = 0xC0502100
_SEND = 0xC0182101
_ADDFD = 0x40182103
_SET_FLAGS = 0x40082104

_ADDFD_FLAG_SEND = 2
_RESP_FLAG_CONTINUE = 1
_FD_SYNC_WAKE_UP = 1

_NOTIFICATION = struct.Struct("<QIIIIQ6Q")
_RESPONSE = struct.Struct("<QqiI")
_ADD_DESCRIPTOR = struct.Struct("<QIIII")


class Gone(Exception):
    """The caller no longer waits: it died, or a signal interrupted the call and it may repeat it."""


class Call(NamedTuple):
    """One system call that waits for an answer."""

    cookie: int
    tid: int
    number: int
    arguments: tuple[int, int, int, int]
    is_32_bit: bool = False
    """Made by the i386 ABI (`int 0x80`, or a 32-bit program), which numbers the calls differently."""


class Listener:
    """Receives calls and answers them.

    The filter is installed without SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV on purpose. With it, a received call
    can be interrupted only by fatal signals, and a vCPU that sits in KVM_RUN could never be kicked. The price
    is a small window in the kernel: a signal that arrives in the very moment of the answer can make the caller
    repeat a call whose answer we believe delivered.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        try:
            # Wake the other side on the same processor: each call is a round trip. Linux 6.6; optional.
            fcntl.ioctl(descriptor, _SET_FLAGS, _FD_SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise

    def receive(self) -> Call:
        """Take the next call. Raises Gone if the caller went away since poll() announced it."""
        buffer = bytearray(_NOTIFICATION.size)  # the kernel insists on zeros
        try:
            fcntl.ioctl(self.descriptor, _RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                raise Gone from error
            raise
        cookie, tid, _, number, arch, _, first, second, third, fourth, _, _ = _NOTIFICATION.unpack(buffer)
        return Call(cookie, tid, number, (first, second, third, fourth), arch == AUDIT_ARCH_I386)

    def let_through(self, call: Call) -> None:
        """Have the kernel execute the call as if nobody had looked. A caller that is gone does not matter."""
        try:
            fcntl.ioctl(self.descriptor, _SEND, _RESPONSE.pack(call.cookie, 0, 0, _RESP_FLAG_CONTINUE))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def answer(self, call: Call, value: int, error: int = 0) -> None:
        """Return `value`, or -1 with errno `error`. Raises Gone."""
        self._send(_SEND, _RESPONSE.pack(call.cookie, value, -error, 0))

    def answer_with_descriptor(self, call: Call, descriptor: int, close_on_exec: bool) -> int:
        """Install a copy of `descriptor` in the caller and return its new number, in one step.

        Returns the number the caller sees (its lowest free one). Raises Gone, and OSError (EMFILE) when the
        caller has no number left; the call then still waits for an answer.
        """
        flags = os.O_CLOEXEC if close_on_exec else 0
        return self._send(
            _ADDFD,
            _ADD_DESCRIPTOR.pack(call.cookie, _ADDFD_FLAG_SEND, descriptor, 0, flags),
        )

    def _send(self, request: int, payload: bytes) -> int:
        while True:
            try:
                number: int = fcntl.ioctl(self.descriptor, request, bytearray(payload))
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                # ESRCH: interrupted while it installed the descriptor; EINPROGRESS: being interrupted.
                if error.errno in (errno.ENOENT, errno.ESRCH, errno.EINPROGRESS):
                    raise Gone from error
                raise
            return number
