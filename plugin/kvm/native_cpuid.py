"""This machine's own processor as a platform: ``--platform native``.

The CPUID instruction is executed in a few bytes of machine code. Where no code may be mapped, the cpuid driver's
/dev/cpu/N/cpuid is read instead.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform as machine
import struct
from collections.abc import Callable
from typing import TypeAlias

from plugin.cpuid import Leaf, Registers
from plugin.tdx_module.platform import Platform

NAME = "native"

Execute: TypeAlias = Callable[[int, int], Registers]

# push rbx; mov r8,rdx; mov eax,edi; mov ecx,esi; cpuid; store eax, ebx, ecx, edx at r8; pop rbx; ret
_CODE = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")

_COUNTED = (0x7, 0x14, 0x17, 0x18, 0x1D, 0x20, 0x24)
"""Leaves whose sub-leaf 0 gives the last sub-leaf in EAX."""

_SUBLEAVES = {0xF: 1, 0x10: 3, 0x12: 2, 0x1E: 1, 0x23: 5}
"""Leaves with a fixed number of sub-leaves: the last one."""

_MOST = 64
"""No leaf has more sub-leaves than that."""


class NoNativeCpuid(Exception):
    """CPUID cannot be read here; the message says why."""


def native_platform() -> Platform:
    """Read the processor that this runs on, all of it on one logical CPU. Raises NoNativeCpuid."""
    if machine.machine() not in ("x86_64", "AMD64"):
        raise NoNativeCpuid(f"--platform native: a {machine.machine()} machine has no CPUID")
    allowed = os.sched_getaffinity(0)
    cpu = min(allowed)
    os.sched_setaffinity(0, {cpu})
    try:
        native = collect(_executor(cpu))
    finally:
        os.sched_setaffinity(0, allowed)
    has_tsx = native[Leaf(7, 0)].ebx >> 11 & 1 if Leaf(7, 0) in native else 0
    return Platform(
        NAME,
        f"this machine, logical CPU {cpu}",
        native,
        tsx_ctrl=bool(has_tsx),
        notes=("tsx_ctrl: whether IA32_TSX_CTRL exists is not in CPUID; assumed where the processor has RTM.",),
    )


def collect(execute: Execute) -> dict[Leaf, Registers]:
    """Ask for every leaf and sub-leaf that there is."""
    native: dict[Leaf, Registers] = {}
    for first in (0, 0x80000000):
        last = execute(first, 0).eax
        if first and not first <= last < first + 0x10000:
            last = first
        for number in range(first, min(last, first + 0xFFFF) + 1):
            for subleaf in _subleaves(number, execute):
                native[Leaf(number, subleaf)] = execute(number, subleaf or 0)
    if native[Leaf(0x80000000)].eax < 0x80000000:
        native[Leaf(0x80000000)] = Registers(0x80000000)
    return native


def _subleaves(number: int, execute: Execute) -> list[int | None]:
    """List the sub-leaves of a leaf; None if it ignores them."""
    if number in _COUNTED:
        return list(range(min(execute(number, 0).eax, _MOST - 1) + 1))
    if number in _SUBLEAVES:
        return list(range(_SUBLEAVES[number] + 1))
    if number == 0x4:
        return _until(lambda n: execute(number, n).eax & 0x1F == 0)
    if number in (0xB, 0x1F):
        return _until(lambda n: execute(number, n).ecx >> 8 & 0xFF == 0)
    if number == 0xD:
        there = execute(0xD, 0).eax | execute(0xD, 0).edx << 32 | execute(0xD, 1).ecx | execute(0xD, 1).edx << 32
        return [0, 1, *(n for n in range(2, _MOST) if there >> n & 1)]
    return [None]


def _until(is_last: Callable[[int], bool]) -> list[int | None]:
    last = next((n for n in range(_MOST) if is_last(n)), _MOST - 1)
    return list(range(last + 1))


class _MachineCode:
    """The CPUID instruction as a function. Raises OSError where no code may be mapped."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_CODE)
        # Holds the page: the code must stay where it is as long as it can be called.
        self._start = ctypes.c_char.from_buffer(self._page)
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(
            ctypes.addressof(self._start)
        )
        self._result = (ctypes.c_uint32 * 4)()

    def __call__(self, leaf: int, subleaf: int) -> Registers:
        self._call(leaf, subleaf, ctypes.addressof(self._result))
        return Registers(*self._result)


def _executor(cpu: int) -> Execute:
    try:
        return _MachineCode()
    except OSError:
        return _from_driver(cpu)


def _from_driver(cpu: int) -> Execute:
    """Read through the cpuid driver: the position is the leaf, and the sub-leaf in the upper half."""
    path = f"/dev/cpu/{cpu}/cpuid"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoNativeCpuid(
            f"--platform native: this process may not map machine code, and {path} cannot be opened: {error.strerror};"
            " `modprobe cpuid` makes it, and root can read it"
        ) from error

    def execute(leaf: int, subleaf: int) -> Registers:
        return Registers(*struct.unpack("<4I", os.pread(file, 16, leaf | subleaf << 32)))

    return execute
