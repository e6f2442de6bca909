"""Runs one command under a simulated KVM, from its first system call to the end of its last descendant."""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
from collections.abc import Callable, Generator

from plugin.kvm.contract import BadAddress, Kvm, NativeCpuid, NewFile, Rejected, Reply
from plugin.kvm.supervisor import bpf, kernel
from plugin.kvm.supervisor.descendants import kill_descendants
from plugin.kvm.supervisor.files import FileTable, KvmFile
from plugin.kvm.supervisor.listener import Call, Gone, Listener
from plugin.kvm.supervisor.memory import ProcessMemory, Unreadable
from plugin.kvm.supervisor.opens import KVM_DEVICE, decode_open, means_kvm
from plugin.kvm.supervisor.spawn import Child
from plugin.processes.signals import signal
from plugin.typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:  # loaded when the command has started: what comes before delays it
    from plugin.kvm.supervisor.tracer import Interception, Tracer

_SIGNAL_INFO = struct.Struct("<Iii116x")  # struct signalfd_siginfo: number, errno, code, ...
_SI_KERNEL = 0x80
_IMMEDIATE_EXIT = slice(1, 2)  # in struct kvm_run
_XTILE_DATA = 18  # number of the XSAVE component
_IOCTLS = (bpf.SYS_IOCTL, bpf.SYS_IOCTL_X32)
_NEW = os.O_CREAT | os.O_EXCL
_NOT_DUMPABLE = (
    "what cannot be looked at may be the real /dev/kvm (so it is in a program that is not dumpable, see "
    "PR_SET_DUMPABLE in prctl(2), unless root supervises it)"
)
_REAL_KVM = "anon_inode:kvm-"
_SAYINGS = 32  # so many different warnings and tracebacks are worth a reader's time, and our memory


class Simulation(NamedTuple):
    """What the command finds behind /dev/kvm."""

    kvm: Kvm
    cpuid: NativeCpuid
    intercept: bool = True  # False: the program's own CPUID instructions are left alone


Loading: TypeAlias = Generator[None, None, Simulation]
"""Loads a simulation in steps of a few milliseconds, between which system calls are answered."""


class Trace(NamedTuple):
    """Receives what happened, for people."""

    warn: Callable[[str], None]
    ioctl: Callable[[int, str, int, int, str], None] | None = None  # tid, kind, request, argument, outcome


class Supervisor:
    """Owns one command. The process that uses it gives itself to it: signals, children and all.

    Other processes of this one are adopted or killed too, so it must have none of its own.
    """

    def __init__(
        self, child: Child, loading: Loading, trace: Trace, stop_descriptor: int = -1, device: int = KVM_DEVICE
    ) -> None:
        """Take a started command; `stop_descriptor` becomes readable (or hangs up) when it shall be killed.

        `device` is the number of the real /dev/kvm, which the command shall never get.
        """
        self._loading: Loading | None = loading
        self._simulation: Simulation | None = None
        self._tracer: Tracer | None = None
        self._trace = trace
        self._stop = stop_descriptor
        self._device = device
        self._files = FileTable()
        self._epoll = select.epoll()
        self._status: int | None = None
        self._said: set[str] = set()
        self._listener = Listener(child.listener)
        self._signals = child.signals
        self.pid = child.pid
        self.on_request: Callable[[], None] = lambda: None  # called upon SIGUSR1
        self.calls = {"opens": 0, "ioctls": 0}
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when somebody opens what `KvmFile.in_use` just looks at
        for descriptor in (child.listener, child.signals, stop_descriptor):
            if descriptor >= 0:
                self._epoll.register(descriptor, select.EPOLLIN)

    def run(self) -> int:
        """Serve until the command has ended and nothing of it is left; return its wait status."""
        try:
            while self._status is None:
                ready = self._epoll.poll(0 if self._loading else None)
                if not ready:
                    self._load_step()
                for descriptor, events in ready:
                    if descriptor == self._listener.descriptor:
                        self._serve(events)
                    elif descriptor == self._signals:
                        self._take_signals()
                    else:
                        self._epoll.unregister(self._stop)
                        os.kill(self.pid, signal.SIGKILL)
        finally:
            kill_descendants()
            self._files.release_unused()
            for descriptor in (self._listener.descriptor, self._signals, self._epoll.fileno()):
                os.close(descriptor)
        return self._status

    @property
    def interception(self) -> Interception:
        """What became of CPUID interception so far."""
        from plugin.kvm.supervisor.tracer import Interception  # noqa: PLC0415

        if self._tracer is not None:
            return self._tracer.state
        if self._simulation is not None and not self._simulation.intercept:
            return Interception(active=False, why_not="switched off")
        return Interception(active=False, why_not="/dev/kvm was never opened")

    def _load_step(self) -> None:
        if self._loading is None:
            return
        try:
            next(self._loading)
        except StopIteration as finished:
            self._loading = None
            self._simulation = finished.value
            if finished.value.intercept:
                from plugin.kvm.supervisor.tracer import Tracer  # noqa: PLC0415

                self._tracer = Tracer(finished.value.cpuid, self._say_once)
        except Exception:
            self._loading = None
            self._report_failure("loading the simulation")

    def _loaded(self) -> Simulation:
        while self._loading is not None:
            self._load_step()
        if self._simulation is None:
            raise Rejected(errno.ENODEV, "the simulation could not be loaded")
        return self._simulation

    def _serve(self, events: int) -> None:
        if not events & select.EPOLLIN:
            self._epoll.unregister(self._listener.descriptor)  # no process under the filter is left
            return
        try:
            call = self._listener.receive()
        except Gone:
            return
        try:
            number = call.number & ~bpf.X32_BIT
            if call.is_32_bit:
                self._open(call)  # the filter asks about nothing else there
            elif number in _IOCTLS:
                self._ioctl(call)
            elif number == bpf.SYS_ARCH_PRCTL:
                self._permit_guest_state(call)
            else:
                self._open(call)
        except Gone:
            pass
        except Exception:
            self._report_failure(f"system call {call.number}, arguments {[hex(a) for a in call.arguments]}")
            try:
                self._listener.answer(call, 0, errno.EIO)
            except Gone:
                return

    def _open(self, call: Call) -> None:
        self.calls["opens"] += 1
        try:
            wanted = decode_open(call, ProcessMemory(call.tid))
            is_kvm = means_kvm(call.tid, wanted, self._device)
        except Unreadable:
            self._refuse(call, errno.EACCES, f"its path cannot be read; {_NOT_DUMPABLE}")
            return
        except BadAddress:
            self._listener.answer(call, 0, errno.EFAULT)
            return
        except OSError as error:
            self._listener.answer(call, 0, error.errno or errno.EIO)  # nearly always the caller's own error, too
            return
        if not is_kvm:
            self._listener.let_through(call)
        elif call.is_32_bit:
            self._refuse(call, errno.ENODEV, "the simulated /dev/kvm is for 64-bit programs")
        elif wanted.flags & _NEW == _NEW:
            self._listener.answer(call, 0, errno.EEXIST)
        else:
            self._open_kvm(call, close_on_exec=bool(wanted.flags & os.O_CLOEXEC))

    def _refuse(self, call: Call, number: int, why: str) -> None:
        """Fail a call that cannot be answered, and say so once for each reason."""
        self._say_once(f"[{call.tid}] an open or ioctl fails with {errno.errorcode[number]}: {why}", why)
        self._listener.answer(call, 0, number)

    def _open_kvm(self, call: Call, *, close_on_exec: bool) -> None:
        try:
            new = self._loaded().kvm.open()
        except Rejected as rejected:
            self._say_once(f"/dev/kvm cannot be opened: {rejected.why}")
            self._listener.answer(call, 0, rejected.errno)
            if rejected.commit is not None:
                rejected.commit()
            return
        if self._tracer is not None:
            self._tracer.attach(call.tid)
        self._hand_over(call, new, close_on_exec=close_on_exec)

    def _ioctl(self, call: Call) -> None:
        self.calls["ioctls"] += 1
        descriptor, request, argument, _ = call.arguments
        try:
            file = self._files.find(call.tid, descriptor & 0xFFFFFFFF)
        except PermissionError:
            self._refuse(call, errno.EACCES, f"its descriptor cannot be seen; {_NOT_DUMPABLE}")
            return
        except OSError:
            self._listener.answer(call, 0, errno.EBADF)
            return
        if file is None or file.device is None:
            # Never let through: what answers KVM's requests without being ours is the real KVM.
            self._listener.answer(call, 0, errno.ENOTTY)
            self._say_whose(call.tid, descriptor & 0xFFFFFFFF)
            return
        request &= 0xFFFFFFFF
        memory = ProcessMemory(call.tid)
        try:
            outcome = self._answer(call, file, request, argument, memory)
        except Gone:
            memory.restore()
            raise
        if self._trace.ioctl is not None:
            self._trace.ioctl(call.tid, file.device.kind, request, argument, outcome)

    def _answer(self, call: Call, file: KvmFile, request: int, argument: int, memory: ProcessMemory) -> str:
        """Ask the device and pass its answer on; return it in words."""
        assert file.device is not None
        try:
            outcome = file.device.ioctl(request, argument, memory)
        except Rejected as rejected:
            self._listener.answer(call, 0, rejected.errno)
            if rejected.commit is not None:
                rejected.commit()
            return f"{errno.errorcode.get(rejected.errno, rejected.errno)}: {rejected.why}"
        except BadAddress as bad:
            self._listener.answer(call, 0, errno.EFAULT)
            return f"EFAULT: {bad}"
        if isinstance(outcome, Reply):
            self._listener.answer(call, outcome.value)
            if outcome.commit is not None:
                outcome.commit()
            return str(outcome.value)
        if isinstance(outcome, NewFile):
            number = self._hand_over(call, outcome, close_on_exec=True)
            return f"descriptor {number}" if number >= 0 else errno.errorcode.get(-number, str(-number))
        if file.pages is not None and file.pages[_IMMEDIATE_EXIT] != b"\0":
            self._listener.answer(call, 0, errno.EINTR)
            return "EINTR: immediate_exit"
        # Nothing to remember: a signal to the thread ends the call with EINTR in the kernel, which drops the
        # notification. (If the handler has SA_RESTART the call comes again, and immediate_exit counts then.)
        return "waits"

    def _permit_guest_state(self, call: Call) -> None:
        """Grant a guest the dynamic XSAVE states that the simulated processor has (AMX), as arch_prctl(2) would.

        Only tile data is dynamic in the kernel; it refuses all other component numbers.
        """
        if self._simulation is None:
            self._listener.let_through(call)  # no /dev/kvm, so no simulated guest
            return
        component = call.arguments[1]
        has = self._simulation.cpuid(0xD, 0).eax >> component & 1 if component == _XTILE_DATA else 0
        self._listener.answer(call, 0, 0 if has else errno.EOPNOTSUPP)

    def _hand_over(self, call: Call, new: NewFile, *, close_on_exec: bool) -> int:
        """Install a new descriptor in the caller; return its number, or minus the errno that the caller gets."""
        try:
            file = self._files.make(new)
        except OSError as error:
            number = error.errno or errno.EIO
            self._listener.answer(call, 0, number)
            self._say_once(f"no descriptor for a {new.name.partition(':')[0]}: {os.strerror(number)}{_limit(number)}")
            return -number
        try:
            number = self._listener.answer_with_descriptor(call, file.theirs, close_on_exec)
        except OSError as error:
            file.close()
            self._listener.answer(call, 0, error.errno or errno.EIO)
            return -(error.errno or errno.EIO)
        except Gone:
            file.close()
            raise
        if new.commit is not None:
            new.commit()
        self._files.add(file)
        return number

    def _take_signals(self) -> None:
        for number, _, code in _SIGNAL_INFO.iter_unpack(os.read(self._signals, 32 * _SIGNAL_INFO.size)):
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGUSR1:
                self.on_request()
            elif code != _SI_KERNEL and self._status is None:
                # What the terminal sends, it sends to the command as well.
                os.kill(self.pid, number)

    def _reap(self) -> None:
        """Take all that waitpid has: ptrace stops, adopted orphans, the command's end."""
        while self._status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | kernel.WALL)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                if self._tracer is not None:
                    self._tracer.stopped(pid, status)
            elif pid == self.pid:
                self._status = status

    def _say_whose(self, tid: int, descriptor: int) -> None:
        """Say so if a refused KVM request was for the real KVM: the command got that from somebody outside."""
        try:
            name = os.readlink(f"/proc/{tid}/fd/{descriptor}")
            is_real = os.stat(f"/proc/{tid}/fd/{descriptor}").st_rdev == self._device or name.startswith(_REAL_KVM)
        except OSError:
            return
        if is_real:
            self._say_once(
                f"the command has a descriptor of the real KVM ({name}) from outside of this simulation; KVM's "
                "requests to it fail with ENOTTY"
            )

    def _say_once(self, text: str, key: str = "") -> None:
        """Warn, once for each `key` (`text` itself unless given)."""
        key = key or text
        if key not in self._said and len(self._said) < _SAYINGS:
            self._said.add(key)
            self._trace.warn(text)

    def _report_failure(self, what: str) -> None:
        """Print a traceback, once for each kind of exception and place."""
        import traceback  # noqa: PLC0415 - rarely needed

        text = "".join(traceback.format_exception(sys.exception()))
        self._say_once(f"internal error in {what}; the call fails with EIO\n{text}", text)


def _limit(number: int) -> str:
    """Name the limit behind an errno."""
    limits = {
        errno.EMFILE: "; the supervisor needs one for each VM and vCPU (ulimit -Hn)",
        errno.EFBIG: "; the supervisor cannot make so large a file (ulimit -Hf)",
        errno.EPERM: "; memfd_create(2) is denied here, perhaps by a container's seccomp profile",
        errno.ENOSYS: "; memfd_create(2) is missing or denied here",
    }
    return limits.get(number, "")
