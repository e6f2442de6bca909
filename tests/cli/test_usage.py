"""Words on the command line that contradict each other, name nothing, or are not what they should be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize(
    "more",
    [
        *("--stock", "--hardware", "--strict-platform", "--choose minimal", "--xfam 0x3", "--module 1.0"),
        *("--kvm both", "--fault entropy", "--smp 2", "--machine q35", "--memory 1G", "--qemu x", "--firmware x"),
        "-- qemu -smp 2",
    ],
)
def test_what_is_for_a_new_td_does_not_go_with_one_that_runs(more: str) -> None:
    words = more.split()
    result = run("negotiate", "--qmp", "/nonexistent", *words)
    assert result.returncode == 2, result.stderr
    assert "runs already" in result.stderr
    assert ("behind --" if words[0] == "--" else words[0]) in result.stderr


def test_a_socket_that_is_not_there_is_said_without_numbers() -> None:
    result = run("negotiate", "--qmp", "/nonexistent", "--cpu", "host", "--all", "--fail-on", "none")
    assert result.returncode == 4
    assert result.stderr == "tdx-cpuid: the QMP socket /nonexistent cannot be used: No such file or directory\n"


def test_a_program_that_is_no_qemu(tdvf: Path) -> None:
    result = run("negotiate", "--qemu", "/bin/true", "--firmware", tdvf)
    assert result.returncode == 4
    assert "is /bin/true a QEMU?" in result.stderr
    assert "EOFError" not in result.stderr


def test_a_number_that_is_none() -> None:
    result = run("predict", "--xfam", "lots")
    assert result.returncode == 2
    assert "--xfam: 'lots' is no number" in result.stderr


def test_a_baseline_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\0")
    result = run("baseline", "check", "x", "--folder", tmp_path)
    assert result.returncode == 2
    assert "is no text, and so no baseline" in result.stderr


CLOCK = """
import sys, time
def beyond():
    raise OverflowError("timestamp too large to convert to C _PyTime_t")
time.time = beyond
from qmp_client.cli.program import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_clock_that_python_cannot_read_is_said() -> None:
    """As it is when it stands 285 years ahead: what loads asyncio or logging fails."""
    words = ["watch", "--once", "--broker", "mqtt://localhost"]
    done = subprocess.run(
        [sys.executable, "-c", CLOCK, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert "tdx-cpuid: this machine's clock is more than 292 years from 1970" in done.stderr
