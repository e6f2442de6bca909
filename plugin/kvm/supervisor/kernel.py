"""Linux calls that the standard library has no function for, with the numbers of x86_64.

Every function raises OSError as the `os` module does. Sources: the kernel's uapi headers seccomp.h, ptrace.h
and signalfd.h, and the manual pages of the calls. What concerns any process is in `plugin.processes`.
"""

from __future__ import annotations

import ctypes
import os

PTRACE_CONT = 7
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_LISTEN = 0x4208

WALL = 0x40000000  # __WALL of waitpid: threads of a traced process too

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x2, 0x4, 0x10
"""openat2's: no /proc links to open files, no symlinks at all, the directory is the root."""

_SYS_SECCOMP = 317
_SYS_OPENAT2 = 437
_PROC_SUPER_MAGIC = 0x9FA0
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
_SFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_libc.signalfd.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


for _transfer in (_libc.process_vm_readv, _libc.process_vm_writev):
    _iovecs = ctypes.POINTER(_Iovec)
    _transfer.argtypes = (ctypes.c_int, _iovecs, ctypes.c_ulong, _iovecs, ctypes.c_ulong, ctypes.c_ulong)
    _transfer.restype = ctypes.c_ssize_t


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def install_filter(program: bytes) -> int:
    """Install a seccomp filter (struct sock_filter, 8 bytes each) for this thread; return its listener."""
    description = _FilterProgram(len(program) // 8, program)
    listener: int = _libc.syscall(
        _SYS_SECCOMP,
        _SECCOMP_SET_MODE_FILTER,
        _SECCOMP_FILTER_FLAG_NEW_LISTENER,
        ctypes.byref(description),
    )
    if listener < 0:
        raise _failed()
    return listener


def signal_descriptor(signals: set[int]) -> int:
    """Return a descriptor that delivers these (blocked) signals as struct signalfd_siginfo of 128 bytes."""
    mask = sum(1 << number - 1 for number in signals)
    descriptor: int = _libc.signalfd(-1, mask.to_bytes(128, "little"), _SFD_NONBLOCK_CLOEXEC)
    if descriptor < 0:
        raise _failed()
    return descriptor


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Read up to `size` bytes of another process, as far as its pages are readable."""
    buffer = ctypes.create_string_buffer(size)
    here, there = _Iovec(ctypes.addressof(buffer), size), _Iovec(address, size)
    count: int = _libc.process_vm_readv(pid, here, 1, there, 1, 0)
    if count < 0:
        raise _failed()
    return buffer.raw[:count]


def write_memory(pid: int, address: int, data: bytes) -> int:
    """Write to another process where its own pages are writable; return the number of bytes written."""
    buffer = ctypes.create_string_buffer(data, len(data))
    here, there = _Iovec(ctypes.addressof(buffer), len(data)), _Iovec(address, len(data))
    count: int = _libc.process_vm_writev(pid, here, 1, there, 1, 0)
    if count < 0:
        raise _failed()
    return count


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    """Control the traced thread `tid`."""
    if _libc.ptrace(request, tid, address, data) < 0:
        raise _failed()


def ptrace_registers(tid: int) -> ctypes.Array[ctypes.c_uint64]:
    """Return struct user_regs_struct of a stopped thread, for `ptrace(PTRACE_SETREGS)` to write back."""
    registers = (ctypes.c_uint64 * 27)()
    ptrace(PTRACE_GETREGS, tid, 0, ctypes.addressof(registers))
    return registers


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_place(directory: int, path: bytes, resolve: int) -> int:
    """Return an O_PATH descriptor of what `path` leads to from `directory`: nothing is opened, no driver asked.

    `resolve` is openat2's. ELOOP: there is a link that it forbids.
    """
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, resolve)
    descriptor: int = _libc.syscall(_SYS_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        raise _failed()
    return descriptor


def is_procfs(descriptor: int) -> bool:
    """Whether a file is in a proc file system, of whichever PID namespace."""
    status = (ctypes.c_long * 16)()  # struct statfs is 120 bytes and begins with f_type
    if _libc.fstatfs(descriptor, status) < 0:
        raise _failed()
    return status[0] == _PROC_SUPER_MAGIC
