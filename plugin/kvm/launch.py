"""Runs a command under a simulated TDX KVM: `supervise`, for a process that has nothing else to do.

`tdx-cpuid sim` calls it directly. A program with other duties (an event loop, say) forks early, before it has
threads, and calls it in the child (`plugin.processes.child`), whose exit status then is the command's::

    preload()                         # optional: once here, instead of in each child
    pid = fork(lambda parent: supervise(lambda: host, argv, pass_fds=(monitor,), record_fd=record))

Such children may run one after another or at once: each has its own SimulatedKvm, listener and descriptors, so
none can disturb another, and killing one (even with SIGKILL) ends its command only.

What it does not do: it is no security boundary (see docs/no-way-to-the-real-device.md); stat(2) and access(2) on
/dev/kvm see this machine's; no_new_privs keeps setuid helpers from gaining rights; a daemon that the command
leaves behind is killed with it. A grandchild survives SIGKILL of the supervisor unless it opened /dev/kvm and is
traced; its KVM calls fail with ENOSYS from then on.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence

from plugin.kvm.say import say
from plugin.kvm.supervisor.spawn import Command, ProcUnavailable, SeccompUnavailable, Starting
from plugin.typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # loaded while the command starts
    from plugin.kvm.contract import Kvm
    from plugin.kvm.device import SimulatedKvm
    from plugin.kvm.supervisor.supervisor import Loading, Supervisor
    from plugin.tdx_module import TdxHost

DEFAULT_MODULE = "1.5.05"
DEFAULT_PLATFORM = "emerald-rapids"
DIALECTS = ("upstream", "proposal")

USAGE = 2
MISSING = 3


class Conversation(NamedTuple):
    """Where the calls of a command are written to."""

    descriptor: int
    argv: Sequence[str]


def default_host() -> TdxHost:
    """Load the host that is simulated where nobody names another."""
    from plugin.tdx_module import load_host  # noqa: PLC0415

    return load_host(DEFAULT_MODULE, DEFAULT_PLATFORM)


def preload() -> None:
    """Load the program ahead, for supervisors forked later. What else they need, a host above all, is loaded before."""
    import plugin.kvm.device  # noqa: PLC0415
    import plugin.kvm.supervisor.supervisor  # noqa: PLC0415
    import plugin.kvm.supervisor.tracer  # noqa: PLC0415

    assert plugin.kvm.device and plugin.kvm.supervisor
    gc.freeze()  # a collection in a forked supervisor would write to, and so copy, every page that holds an object


def supervise(
    host: Callable[[], TdxHost],
    argv: Sequence[str],
    *,
    dialect: str = DIALECTS[0],
    faults: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    record_fd: int | None = None,
    conversation_fd: int | None = None,
    stop_fd: int = -1,
    native_cpuid: bool = False,
    verbose: bool = False,
) -> int:
    """Run `argv` with /dev/kvm simulated, until it has ended and nothing that it started is left.

    `host` is called for what is simulated while the command starts, which need not wait for files to be read.
    `dialect` is one of DIALECTS: how KVM is asked about a TD's CPUID. `faults` go wrong on the way, as
    `plugin.kvm.dialects.faults` spells them; the caller has checked both.

    This process becomes its supervisor: from the main thread, with no children of its own. SIGINT, SIGTERM and
    SIGHUP are passed on to the command, and SIGKILL of this process kills it. `pass_fds` stay open in the command,
    by the same numbers, and are closed here. When `stop_fd` becomes readable or hangs up, the command is killed.
    `native_cpuid` leaves the command's CPUID instructions alone, which a debugger needs that wants to attach to
    it. `verbose` prints each ioctl on stderr.

    `record_fd` gets one JSON object on a line when the command has ended, and for each SIGUSR1 before; a file is
    overwritten, so it holds the latest. It says what every TD was asked for and became, and what the simulation
    could not do ("warnings", "cpuid").

    `conversation_fd` gets every KVM call, decoded, as JSON Lines while they take place (`plugin.kvm.conversation`).

    Returns the exit status as a shell has it (128 + n for signal n); 3 when the command cannot be executed or
    supervised, after a message on stderr.
    """
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        say(f"tdx-cpuid sim: {text}")

    try:
        starting = Starting(Command(argv, env, cwd, {number: number for number in pass_fds}))
    except ProcUnavailable as error:
        say(f"tdx-cpuid sim: {error}")
        return MISSING
    except OSError as error:
        say(f"tdx-cpuid sim: cannot start a process: {error.strerror}")
        return MISSING
    from plugin.kvm.supervisor.supervisor import Supervisor, Trace  # noqa: PLC0415 - while the command starts

    try:
        child = starting.executed()
    except SeccompUnavailable as error:
        say(f"tdx-cpuid sim: {error}")
        return MISSING
    except OSError as error:
        say(f"tdx-cpuid sim: cannot execute {error.filename}: {error.strerror}")
        return MISSING
    for number in pass_fds:
        os.close(number)
    devices: list[SimulatedKvm] = []
    talk = None if conversation_fd is None else Conversation(conversation_fd, argv)
    loading = _loading(host, dialect, faults, warn, devices, native_cpuid, talk)
    supervisor = Supervisor(child, loading, Trace(warn, _print_ioctl if verbose else None), stop_fd)

    def record(status: int | None = None) -> None:
        if record_fd is not None:
            _write_record(record_fd, _record(supervisor, argv, status, warnings, devices, host))

    supervisor.on_request = record
    status = supervisor.run()
    if talk is not None and not devices:  # the command was quicker than the loading: its record has a head all the same
        for _ in _loading(host, dialect, faults, warn, devices, native_cpuid, talk):
            pass
    record(status)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _loading(
    host: Callable[[], TdxHost],
    dialect: str,
    faults: Sequence[str],
    warn: Any,
    devices: list[SimulatedKvm],
    native_cpuid: bool,
    conversation: Conversation | None,
) -> Loading:
    """Load while the command starts: its dynamic linker opens files and must not wait for all of this at once."""
    gc.disable()  # all that is made now stays
    yield
    import plugin.cpuid  # noqa: PLC0415

    yield
    import plugin.tdx_module  # noqa: PLC0415

    yield
    simulated = host()
    yield
    import plugin.kvm.uapi.ioctls  # noqa: PLC0415

    yield
    from plugin.kvm.device import SimulatedKvm  # noqa: PLC0415
    from plugin.kvm.supervisor.supervisor import Simulation  # noqa: PLC0415

    yield
    assert plugin.cpuid and plugin.tdx_module and plugin.kvm.uapi.ioctls
    device = SimulatedKvm(simulated, warn, dialect=dialect, faults=faults)
    devices.append(device)
    gc.freeze()
    gc.enable()
    kvm: Kvm = device
    if conversation is not None:
        from plugin.kvm.conversation.recorder import recorded  # noqa: PLC0415 - only --record needs it

        head = {
            "argv": list(conversation.argv),
            "module": simulated.module.name,
            "platform": simulated.platform.name,
            "interface": device.host.tdx.interface,
        }
        kvm = recorded(device, conversation.descriptor, head)
    return Simulation(kvm, device.cpuid, intercept=not native_cpuid)


def _record(
    supervisor: Supervisor,
    argv: Sequence[str],
    status: int | None,
    warnings: list[str],
    devices: list[SimulatedKvm],
    host: Callable[[], TdxHost],
) -> dict[str, Any]:
    """Return what happened, as JSON objects; `status` is None while the command runs."""
    command: dict[str, Any] = {"argv": list(argv), "pid": supervisor.pid}
    if status is not None and os.WIFSIGNALED(status):
        command["signal"] = os.WTERMSIG(status)
    elif status is not None:
        command["exit"] = os.WEXITSTATUS(status)
    record: dict[str, Any] = {
        "command": command,
        "cpuid": supervisor.interception._asdict(),
        "calls": supervisor.calls,
        "warnings": warnings,
    }
    for device in devices:
        record |= device.record()
    if not devices:  # a command may end before the simulation is there
        simulated = host()
        record |= {"module": simulated.module.name, "platform": simulated.platform.name, "tds": []}
    return record


def _write_record(descriptor: int, record: dict[str, Any]) -> None:
    import json  # noqa: PLC0415 - after the command's start

    # A word of the command that is no UTF-8 is one for people here, with a question mark.
    line = json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n"
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        pass  # a pipe or socket: its reader takes line by line
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    except OSError as error:
        say(f"tdx-cpuid sim: the record cannot be written: {error.strerror}")


def _print_ioctl(tid: int, kind: str, request: int, argument: int, outcome: str) -> None:
    from plugin.kvm.uapi.ioctls import served_by  # noqa: PLC0415

    row = served_by(kind).get(request)
    name = row.name if row else f"ioctl {request:#x}"
    say(f"tdx-cpuid sim: [{tid}] {kind}: {name}({argument:#x}) = {outcome}")
