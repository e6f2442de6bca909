"""Starts a command with the filter installed, and hands back its listener.

Nothing else of the package is loaded before: the command's own start and the loading of the simulation run side by
side.
"""

from __future__ import annotations

import _socket as socket  # `socket` itself costs more to import than everything else here
import array
import errno
import fcntl
import os
import struct
from collections.abc import Mapping, Sequence

from plugin.kvm.supervisor import kernel
from plugin.kvm.supervisor.bpf import kvm_filter
from plugin.processes.child import FAILED, die_with_parent, fork, take_default_action
from plugin.processes.prctl import PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, prctl
from plugin.processes.signals import signal
from plugin.typing import NamedTuple

WATCHED: set[int] = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1}
"""Signals that the supervisor takes from a signalfd."""

_READY = b"R"
_PREPARING, _CHANGING_DIRECTORY, _FILTERING, _EXECUTING = b"P", b"C", b"F", b"E"
_FAILURE = struct.Struct("<ci")


class SeccompUnavailable(Exception):
    """This kernel or container does not let us install a filter with user notification."""


class ProcUnavailable(Exception):
    """There is no /proc here that shows the processes of this PID namespace."""


class Command(NamedTuple):
    """What to execute.

    `descriptors` maps the numbers that the command shall see to descriptors of this process; 0, 1 and 2 are
    inherited unless given, all others are closed on exec.
    """

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    descriptors: Mapping[int, int] = {}


class Child(NamedTuple):
    """A command that has been executed: the listener for its system calls, and a signalfd for what is WATCHED."""

    pid: int
    listener: int
    signals: int


class Starting:
    """A command between fork and exec."""

    __slots__ = ("_channel", "_command", "_mask", "_pid", "_signals")

    def __init__(self, command: Command) -> None:
        """Fork. The child installs the filter and executes the command.

        The command gets SIGKILL when this thread dies, cannot gain privileges, and starts with this thread's signal
        mask. The signals in WATCHED are blocked here from now on.

        Raises ProcUnavailable; OSError when there can be no child.
        """
        _look_at_proc()
        program = kvm_filter()
        candidates = _candidates(command)
        env = os.environ if command.env is None else command.env
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, the kernel would not keep the exit status
        self._command = command
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        self._signals = kernel.signal_descriptor(WATCHED)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)

        def become(parent: int) -> int:
            report = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, max(command.descriptors, default=0) + 1)
            return _become(command, candidates, env, parent, self._mask, program, report)

        self._pid = fork(become)
        theirs.close()

    def executed(self) -> Child:
        """Wait until the command has been executed.

        Raises SeccompUnavailable; OSError (FileNotFoundError, PermissionError, ...) with the file name when the
        command cannot be executed.
        """
        try:
            return Child(self._pid, _receive_listener(self._channel, self._command), self._signals)
        except BaseException:
            os.waitpid(self._pid, 0)
            os.close(self._signals)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            raise
        finally:
            self._channel.close()


def _receive_listener(ours: socket.socket, command: Command) -> int:
    """Wait until the command has been executed; the end of the stream says so, being closed on exec."""
    listeners = array.array("i")
    message, ancillary, _, _ = ours.recvmsg(_FAILURE.size, socket.CMSG_SPACE(listeners.itemsize))
    for _, _, data in ancillary:
        listeners.frombytes(data)
    failure = ours.recv(_FAILURE.size) if message == _READY else message
    if not failure and listeners:
        return listeners[0]
    for listener in listeners:
        os.close(listener)
    if not failure:
        raise ChildProcessError(errno.ECHILD, "killed before it was executed", command.argv[0])
    stage, number = _FAILURE.unpack(failure)
    if stage == _FILTERING:
        raise SeccompUnavailable(_explain(number))
    raise OSError(number, os.strerror(number), command.cwd if stage == _CHANGING_DIRECTORY else command.argv[0])


def _look_at_proc() -> None:
    """See that /proc shows this process by the number it has here. Raises ProcUnavailable."""
    try:
        if os.readlink("/proc/self") == str(os.getpid()):
            return
        why = "/proc belongs to another PID namespace"
    except OSError as error:
        why = f"/proc/self: {error.strerror}"
    raise ProcUnavailable(
        f"{why}, so the command's files cannot be seen; mount this one's (unshare --mount-proc, or mount -t proc proc "
        "/proc)"
    )


def _explain(number: int) -> str:
    reasons = {
        errno.EBUSY: "another program already supervises this one (tdx-cpuid sim inside itself, or a container "
        "runtime that uses seccomp user notification); run it outside of that",
        errno.EINVAL: "the kernel has no seccomp user notification; Linux 5.14 or newer with CONFIG_SECCOMP_FILTER "
        "is needed",
        errno.EACCES: "seccomp is denied here; allow no_new_privs and seccomp in the container's profile",
        errno.EPERM: "seccomp is denied here; allow prctl and seccomp in the container's profile",
        errno.ENOSYS: "seccomp(2) is missing or denied here; allow it in the container's profile",
    }
    return reasons.get(number, f"installing the seccomp filter failed: {os.strerror(number)}")


def _become(
    command: Command,
    candidates: Sequence[str],
    env: Mapping[str, str],
    parent: int,
    mask: set[int | signal.Signals],
    program: bytes,
    report: int,
) -> int:
    """Turn the forked child into the command, or say through `report` at which stage that failed."""
    channel = socket.socket(fileno=report)
    stage = _PREPARING
    try:
        die_with_parent(parent)
        take_default_action(signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _place_descriptors(command.descriptors)
        if command.cwd is not None:
            stage = _CHANGING_DIRECTORY
            os.chdir(command.cwd)
        stage = _FILTERING
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        listener = kernel.install_filter(program)
        # From here until exec no file may be opened: nobody would answer.
        channel.sendmsg([_READY], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
        stage = _EXECUTING
        _execute(candidates, command.argv, env)
    except OSError as error:
        channel.send(_FAILURE.pack(stage, error.errno or errno.EIO))
    return FAILED


def _place_descriptors(descriptors: Mapping[int, int]) -> None:
    """Move descriptors to their numbers, by way of numbers above all of these so that none is overwritten."""
    above = max(descriptors, default=0) + 1
    moved = {number: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above) for number, source in descriptors.items()}
    for number, source in moved.items():
        os.dup2(source, number, inheritable=True)


def _candidates(command: Command) -> list[str]:
    """List where to find the program; decided before the fork, because it may read the environment."""
    program = command.argv[0]
    if "/" in program:
        return [program]
    return [f"{directory or '.'}/{program}" for directory in os.get_exec_path(command.env)]


def _execute(candidates: Sequence[str], argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Execute the first candidate that can be, as execvp(3) does. Raises OSError."""
    error: OSError = FileNotFoundError(errno.ENOENT, "not found")
    for path in candidates:
        try:
            os.execve(path, list(argv), env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as denied:
            if os.path.exists(path):  # else it is the folder that may not be searched
                error = denied
    raise error
