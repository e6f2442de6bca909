"""The example systemd unit: it starts the agent, and its sandbox leaves the simulation what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "docs" / "examples" / "lab" / "tdx-cpuid-agent.service"
FILTERED = """
import ctypes, os, sys
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
filter = ctypes.c_void_p(library.seccomp_init(0x00050001))  # SCMP_ACT_ERRNO(EPERM)
for name in sys.argv[1].split():
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0 and library.seccomp_rule_add(filter, 0x7FFF0000, number, 0):  # SCMP_ACT_ALLOW
        sys.exit(f"no rule for {name}")
if library.seccomp_load(filter):
    sys.exit("no filter")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def setting(name: str) -> str:
    lines = UNIT.read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


def system_calls(sets: list[str]) -> Iterator[str]:
    """The system calls in systemd's sets, which may name sets in turn."""
    for one in sets:
        if not one.startswith("@"):
            yield one
            continue
        shown = subprocess.run(["systemd-analyze", "syscall-filter", one], capture_output=True, text=True, check=True)
        words = (line.strip() for line in shown.stdout.splitlines()[1:])
        yield from system_calls([word for word in words if word and not word.startswith("#")])


def test_the_unit_starts_the_agent_with_options_that_it_has() -> None:
    words = setting("ExecStart").split()[1:]
    help_text = subprocess.run(
        [sys.executable, "-m", "qmp_client.cli.entry", "agent", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert words[0] == "agent"
    assert all(word in help_text for word in words if word.startswith("--"))


def test_a_stop_reaches_the_agent_alone_and_a_greedy_job_does_not_end_it() -> None:
    assert (setting("KillMode"), setting("OOMPolicy")) == ("mixed", "continue")


def test_the_unit_lets_the_simulation_watch_qemu() -> None:
    assert {"@debug", "seccomp"} <= set(setting("SystemCallFilter").split())


@pytest.mark.skipif(
    not shutil.which("systemd-analyze") or not find_library("seccomp"), reason="needs systemd-analyze and libseccomp"
)
@pytest.mark.parametrize("more", [[], ["seccomp"]], ids=["the unit's", "without seccomp"])
def test_a_td_under_the_units_system_call_filter(qemu: Path, firmware: Path, more: list[str]) -> None:
    """A service manager's filter, laid around a simulated TD as systemd lays it; and that it is one."""
    allowed = set(system_calls([*setting("SystemCallFilter").split(), "@default"])) - set(more)
    words = ["-m", "qmp_client.cli.entry", "negotiate", "--fail-on", "none"]
    words += ["--qemu", str(qemu), "--firmware", str(firmware)]
    done = subprocess.run(
        [sys.executable, "-c", FILTERED, " ".join(sorted(allowed)), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == (4 if more else 0), done.stderr
    assert ("seccomp is denied here" in done.stderr) == bool(more)


def test_a_deaf_agent_is_noticed() -> None:
    assert (setting("Type"), setting("Restart")) == ("notify", "on-failure")
    assert int(setting("WatchdogSec")) >= 10, "a file that somebody has locked may take the agent 5 s"
