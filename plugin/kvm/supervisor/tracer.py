"""CPUID inside the VMM: breakpoints that answer for the simulated processor.

QEMU asks the CPUID instruction itself what `-cpu host` means, and would mix this machine's processor into a
simulated TD. When a process first opens /dev/kvm we attach to it and put a breakpoint (int3) on each CPUID
instruction of its main executable. Shared libraries, and whatever the program asked before it opened
/dev/kvm, keep the real processor on purpose: they choose code paths by it and would run instructions that
this machine does not have. A program that asks late in order to choose a code path would be misled.

The processor's own CPUID faulting would do the same for the whole process, libraries included, and few
machines offer it; one mechanism is enough.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

from plugin.kvm.contract import NativeCpuid
from plugin.kvm.supervisor import kernel
from plugin.kvm.supervisor.cpuid_sites import CPUID, CpuidSites, cpuid_sites_of
from plugin.kvm.supervisor.elf import NotElf
from plugin.processes.signals import signal
from plugin.typing import NamedTuple

_O_TRACEFORK, _O_TRACEVFORK, _O_TRACECLONE, _O_TRACEEXEC, _O_EXITKILL = 0x2, 0x4, 0x8, 0x10, 0x100000
_OPTIONS = _O_TRACEFORK | _O_TRACEVFORK | _O_TRACECLONE | _O_TRACEEXEC | _O_EXITKILL
_EVENT_EXEC = 4
_EVENT_STOP = 128
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

_INT3 = b"\xcc"
# Indices in struct user_regs_struct, 64-bit words.
_RBX, _RAX, _RCX, _RDX, _RIP = 5, 10, 11, 12, 16
_AT_ENTRY = 9


class Interception(NamedTuple):
    """What became of CPUID interception, for the report."""

    active: bool
    why_not: str = ""
    executable: str = ""
    sites: int = 0  # breakpoints in the latest process
    undecided: int = 0  # places that may be CPUID instructions, left alone
    answered: int = 0  # instructions answered


class Tracer:
    """Attaches to processes and handles their ptrace stops.

    It keeps no list of threads: the kernel knows who is traced, new threads and forks are attached by the
    kernel with the same options, and a breakpoint is recognised by its address.
    """

    __slots__ = ("_breakpoints", "_cpuid", "_warn", "state")

    def __init__(self, cpuid: NativeCpuid, warn: Callable[[str], None]) -> None:
        self._cpuid = cpuid
        self._warn = warn
        self._breakpoints: set[int] = set()
        self.state = Interception(active=False, why_not="/dev/kvm was never opened")

    def attach(self, tid: int) -> None:
        """Put the process of thread `tid`, which waits for an answer from us, under breakpoints.

        Never raises: without interception the simulation goes on, and `state` and a warning say what it then
        cannot promise.
        """
        try:
            process, tracer = _process_of(tid)
            if tracer == os.getpid():
                return  # attached already, or a fork of one that was: it has the breakpoints in its copy
            executable = os.readlink(f"/proc/{process}/exe")
            sites = cpuid_sites_of(f"/proc/{process}/exe")
            if sites.genuine:
                self._attach_threads(process)
                try:
                    self._plant(process, sites)
                except NotElf:  # what was remembered of it may be wrong
                    sites = cpuid_sites_of(f"/proc/{process}/exe", anew=True)
                    self._plant(process, sites)
        except NotElf as error:
            self._not_active(f"cannot tell where the program executes CPUID: {error}")
        except PermissionError:
            self._not_active(
                "this process may not trace the program (a debugger has it already, "
                "/proc/sys/kernel/yama/ptrace_scope is 2 or 3, or the container forbids it)"
            )
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):  # it has just died
                self._not_active(f"tracing the program failed: {error}")
        else:
            self._active(executable, sites)

    def stopped(self, tid: int, status: int) -> None:
        """Let a thread go on after a ptrace stop, as waitpid reported it."""
        try:
            self._resume(tid, status)
        except ProcessLookupError:
            return  # killed meanwhile

    def _resume(self, tid: int, status: int) -> None:
        number, event = status >> 8 & 0xFF, status >> 16
        if event == _EVENT_STOP and number in _STOP_SIGNALS:
            # Stopped for all to see (SIGSTOP, Ctrl-Z): it has to stay so until SIGCONT.
            kernel.ptrace(kernel.PTRACE_LISTEN, tid)
        elif event == _EVENT_EXEC:
            # The new program has no breakpoints. It is attached again should it open /dev/kvm.
            kernel.ptrace(kernel.PTRACE_DETACH, tid)
        elif event or (number == signal.SIGTRAP and self._answer(tid)):
            kernel.ptrace(kernel.PTRACE_CONT, tid)
        else:
            kernel.ptrace(kernel.PTRACE_CONT, tid, 0, number)

    def _answer(self, tid: int) -> bool:
        """Complete the CPUID instruction at one of our breakpoints; False if it is some other SIGTRAP."""
        registers = kernel.ptrace_registers(tid)
        # After int3 the instruction pointer is one behind the breakpoint: at CPUID's second byte.
        if registers[_RIP] - 1 not in self._breakpoints:
            return False
        leaf, subleaf = registers[_RAX] & 0xFFFFFFFF, registers[_RCX] & 0xFFFFFFFF
        try:
            eax, ebx, ecx, edx = self._cpuid(leaf, subleaf)
        except Exception as error:  # the program cannot be left in the middle of an instruction
            self._warn(f"CPUID {leaf:#x}.{subleaf:#x} in the program answered with zeros: {error!r}")
            eax = ebx = ecx = edx = 0
        registers[_RAX], registers[_RBX], registers[_RCX], registers[_RDX] = eax, ebx, ecx, edx
        registers[_RIP] += len(CPUID) - len(_INT3)
        kernel.ptrace(kernel.PTRACE_SETREGS, tid, 0, ctypes.addressof(registers))
        self.state = self.state._replace(answered=self.state.answered + 1)
        return True

    def _attach_threads(self, process: int) -> None:
        """Seize every thread; those created meanwhile are attached by the kernel or found in the next round."""
        seized: set[int] = set()
        while True:
            threads = {int(name) for name in os.listdir(f"/proc/{process}/task")} - seized
            if not threads:
                return
            for thread in threads:
                try:
                    kernel.ptrace(kernel.PTRACE_SEIZE, thread, 0, _OPTIONS)
                except ProcessLookupError:
                    pass  # the thread has ended
                except PermissionError:
                    if _tracer_of(thread) != os.getpid():
                        raise
                seized.add(thread)

    def _plant(self, process: int, sites: CpuidSites) -> None:
        offset = _entry_of(process) - sites.entry
        addresses = [site + offset for site in sites.genuine]
        memory = os.open(f"/proc/{process}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            for address in addresses:
                if not _has_cpuid(memory, address):
                    raise NotElf(f"its memory at {address:#x} differs from its file")
            for address in addresses:
                # Known before it can be hit: the other threads are running.
                self._breakpoints.add(address)
                os.pwrite(memory, _INT3, address)
        finally:
            os.close(memory)

    def _active(self, executable: str, sites: CpuidSites) -> None:
        if sites.undecided:
            self._warn(
                f"{executable}: {len(sites.undecided)} places may be CPUID instructions outside any known "
                f"function ({', '.join(map(hex, sites.undecided[:4]))}); they show the real processor"
            )
        self.state = Interception(
            active=True,
            executable=executable,
            sites=len(sites.genuine),
            undecided=len(sites.undecided),
            answered=self.state.answered,
        )

    def _not_active(self, why: str) -> None:
        self._warn(
            f"the CPUID instruction is not intercepted: {why}. What the program reads from it itself "
            "(with -cpu host: vendor, family/model/stepping, phys-bits, cache and topology) is this machine's"
        )
        self.state = Interception(active=False, why_not=why, answered=self.state.answered)


def _has_cpuid(memory: int, address: int) -> bool:
    try:
        return os.pread(memory, len(CPUID), address) == CPUID
    except (OSError, OverflowError):
        return False


def _status_fields(tid: int) -> dict[bytes, bytes]:
    with open(f"/proc/{tid}/status", "rb") as file:
        lines = [line.partition(b":") for line in file]
    return {name: value.strip() for name, _, value in lines}


def _process_of(tid: int) -> tuple[int, int]:
    """Return a thread's process and who traces it (0: nobody)."""
    fields = _status_fields(tid)
    return int(fields[b"Tgid"]), int(fields[b"TracerPid"])


def _tracer_of(tid: int) -> int:
    try:
        return _process_of(tid)[1]
    except OSError:
        return os.getpid()  # it has ended: no reason to give up


def _entry_of(process: int) -> int:
    """Return where the program's entry point was loaded, from the auxiliary vector."""
    with open(f"/proc/{process}/auxv", "rb") as file:
        for kind, value in struct.iter_unpack("<QQ", file.read()):
            if kind == _AT_ENTRY:
                return int(value)
    raise NotElf("the kernel gives no AT_ENTRY for it")
