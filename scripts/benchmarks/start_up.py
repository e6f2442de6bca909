"""How long until QEMU answers QMP, and how much memory that takes: bare, simulated cold and warm, negotiated.

And how long the commands take that need no QEMU, beside a Python that does nothing.

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
from collections.abc import Callable, Mapping, Sequence
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
    """Something that is measured, and the ratio to the bare start, the first of its table, that it aims at."""

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


def whole(command: Sequence[str], **environment: str) -> Callable[[], Sample]:
    """A command from its start to its end; the memory is that of its largest process."""

    def measure() -> Sample:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise click.ClickException(f"{' '.join(command)} ended with {process.returncode}")
        return Sample(time.perf_counter() - begin, usage.ru_maxrss / 1024)

    return measure


def ours(*words: str, **environment: str) -> Callable[[], Sample]:
    """A command of this program as a user runs it, imports included."""
    return whole([str(PROGRAM), *words], **environment)


COMPLETION = {"_TDX_CPUID_COMPLETE": "bash_complete", "COMP_WORDS": "tdx-cpuid neg", "COMP_CWORD": "1"}
QEMUS = [
    Subject("bare QEMU (TCG) to its QMP answer", lambda: until_qmp_answers(program([], "tcg"))),
    Subject("the same QEMU as a TD, cold `sim`", lambda: until_qmp_answers(program(SIM, "tdx")), 2.5),
    Subject("the same, warm supervisor", lambda: until_qmp_answers(warm), 1.5),
    Subject(
        "a whole cold `negotiate`",
        ours("negotiate", "--fail-on", "none", "--smp", "2", "--platform", "emerald-rapids"),
        6.0,
    ),
]
COMMANDS = [
    Subject("bare Python", whole([sys.executable, "-I", "-c", "pass"])),
    Subject("`--version`", ours("--version"), 6.0),
    Subject("`--help`", ours("--help"), 6.0),
    Subject("completion", ours(**COMPLETION), 6.0),
    Subject("`explain`", ours("explain", "avx512f"), 10.0),
    Subject("`predict`", ours("predict", "--fail-on", "none"), 15.0),
]


@click.command()
@click.option("--rounds", default=15, show_default=True, help="How often each is measured; the median is shown.")
def main(rounds: int) -> None:
    """Print medians and ratios."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    preload()
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in (*QEMUS, *COMMANDS)}
    for number in range(rounds + 1):
        for subject in (*QEMUS, *COMMANDS):
            sample = subject.measure()
            if number:  # the first round fills the page cache
                samples[subject.name].append(sample)
    for subjects in (QEMUS, COMMANDS):
        show(subjects, samples, f"median of {rounds}, measured in turn", memory=subjects is QEMUS)


def show(subjects: Sequence[Subject], samples: Mapping[str, Sequence[Sample]], title: str, *, memory: bool) -> None:
    """Print a table of medians, each with its ratio to the first one's; with ``memory``, of that as well.

    A short command's peak is this process's own, which it was forked from.
    """
    table = Table(title=title)
    for column in ("", "wall", "ratio", "aim", *(("peak memory", "ratio") if memory else ())):
        table.add_column(column, justify="left" if not column else "right")
    bare = samples[subjects[0].name]
    for subject in subjects:
        seconds = statistics.median(s.seconds for s in samples[subject.name])
        mebibytes = statistics.median(s.mebibytes for s in samples[subject.name])
        peak = f"{mebibytes:.0f} MiB", f"{mebibytes / statistics.median(s.mebibytes for s in bare):.2f}"
        table.add_row(
            subject.name,
            f"{seconds * 1000:.0f} ms",
            f"{seconds / statistics.median(s.seconds for s in bare):.2f}",
            f"<= {subject.aim}" if subject.aim else "",
            *(peak if memory else ()),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
