"""How long until QEMU answers QMP, and how much memory that takes: bare, simulated cold and warm, negotiated.

Every figure of one run is measured in turn with the others, so a busy machine slows all of them alike, and only the
ratios to the bare start mean something. The bare start is the same QEMU with the same machine under TCG.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from plugin.kvm.launch import default_host, preload, supervise
from plugin.processes.child import fork

HOST = default_host()
PROGRAM = Path(sys.executable).with_name("tdx-cpuid")
SIM = [str(PROGRAM), "sim", "--"]
MACHINE = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-smp", "2", "-m", "512M"]
ACCELERATION = {
    "tcg": ["-accel", "tcg", "-machine", "q35", "-cpu", "qemu64"],
    "tdx": ["-accel", "kvm", "-object", "tdx-guest,id=tdx0", "-cpu", "host",
            "-machine", "q35,kernel-irqchip=split,confidential-guest-support=tdx0"],
}  # fmt: skip


class Sample(NamedTuple):
    """One start: wall time in seconds, and the peak resident memory of all its processes together in MiB."""

    seconds: float
    mebibytes: float


class Subject(NamedTuple):
    """Something that is measured, and the ratio to the bare start that it aims at."""

    name: str
    measure: Callable[[], Sample]
    aim: float | None = None


def qemu(kind: str, monitor: int) -> list[str]:
    """The command line of QEMU with its monitor on an inherited descriptor."""
    return [
        os.environ["TDX_CPUID_QEMU"], *MACHINE, *ACCELERATION[kind], "-bios", os.environ["TDX_CPUID_FIRMWARE"],
        "-chardev", f"socket,id=qmp,fd={monitor}", "-qmp", "chardev:qmp",
    ]  # fmt: skip


def until_qmp_answers(start: Callable[[int], int]) -> Sample:
    """Start QEMU, ask query-status, note the time of the answer, then end it.

    ``start`` takes the monitor's descriptor, which it closes on its own side, and returns the process to wait for.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        begin = time.perf_counter()
        pid = start(theirs.fileno())
        theirs.close()
        lines = ours.makefile("rwb", buffering=0)
        lines.readline()
        lines.write(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}')
        while b'"status"' not in (line := lines.readline()):
            if not line:
                raise click.ClickException("QEMU died; its own words are above")
        sample = Sample(time.perf_counter() - begin, peak_memory(pid))
        lines.write(b'{"execute":"quit"}')
        os.waitpid(pid, 0)
        return sample


def program(prefix: Sequence[str], kind: str) -> Callable[[int], int]:
    """A start by executing a program."""

    def start(monitor: int) -> int:
        command = [*prefix, *qemu(kind, monitor)]
        os.set_inheritable(monitor, True)
        return os.posix_spawn(command[0], command, os.environ)

    return start


def warm(monitor: int) -> int:
    """A start under a supervisor that has everything loaded: it is forked from this process, which has."""
    return fork(lambda _: supervise(lambda: HOST, qemu("tdx", monitor), pass_fds=(monitor,)))


def peak_memory(pid: int) -> float:
    """The peak resident memory of a process and its descendants, in MiB."""
    total, todo = 0.0, [pid]
    while todo:
        folder = Path(f"/proc/{todo.pop()}")
        status = (folder / "status").read_text()
        total += int(status.partition("VmHWM:")[2].split()[0]) / 1024
        for task in (folder / "task").iterdir():
            todo += [int(child) for child in (task / "children").read_text().split()]
    return total


def negotiate() -> Sample:
    """A whole negotiation as a user runs it, imports included; the memory is that of its largest process."""
    begin = time.perf_counter()
    command = [str(PROGRAM), "negotiate", "--fail-on", "none", "--smp", "2", "--platform", "emerald-rapids",
               "--qemu", os.environ["TDX_CPUID_QEMU"], "--firmware", os.environ["TDX_CPUID_FIRMWARE"]]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"negotiate ended with {process.returncode}")
    return Sample(time.perf_counter() - begin, usage.ru_maxrss / 1024)


SUBJECTS = [
    Subject("bare QEMU (TCG) to its QMP answer", lambda: until_qmp_answers(program([], "tcg"))),
    Subject("the same QEMU as a TD, cold `sim`", lambda: until_qmp_answers(program(SIM, "tdx")), 2.5),
    Subject("the same, warm supervisor", lambda: until_qmp_answers(warm), 1.5),
    Subject("a whole cold `negotiate`", negotiate, 6.0),
]


@click.command()
@click.option("--rounds", default=15, show_default=True, help="How often each is measured; the median is shown.")
def main(rounds: int) -> None:
    """Print medians and ratios."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    preload()
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in SUBJECTS}
    for number in range(rounds + 1):
        for subject in SUBJECTS:
            sample = subject.measure()
            if number:  # the first round fills the page cache
                samples[subject.name].append(sample)
    table = Table(title=f"median of {rounds}, measured in turn")
    for column in ("", "wall", "ratio", "aim", "peak memory", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    bare = samples[SUBJECTS[0].name]
    for subject in SUBJECTS:
        seconds = statistics.median(s.seconds for s in samples[subject.name])
        mebibytes = statistics.median(s.mebibytes for s in samples[subject.name])
        table.add_row(
            subject.name,
            f"{seconds * 1000:.0f} ms",
            f"{seconds / statistics.median(s.seconds for s in bare):.2f}",
            f"<= {subject.aim}" if subject.aim else "",
            f"{mebibytes:.0f} MiB",
            f"{mebibytes / statistics.median(s.mebibytes for s in bare):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
