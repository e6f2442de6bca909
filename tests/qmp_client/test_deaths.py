"""QEMU can die, hang or talk nonsense at every step: each time a clear error, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.waiting import LONGER_AND_LONGER, PATIENCE, until

MISBEHAVING = Path(__file__).with_name("misbehaving_qemu.py")
PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
STEPS = [
    "greeting",
    "query-commands",
    "x-query-tdx-config-cpuid",
    "x-query-tdx-requested-cpuid",
    "x-tdx-set-cpuid-choices",
    "x-exit-preconfig",
    "x-query-tdx-vcpu-cpuid",
]


def command(firmware: Path, *options: str) -> list[str]:
    """The command line of a negotiation with the misbehaving QEMU."""
    given = ["--qemu", str(MISBEHAVING), "--firmware", str(firmware), "--platform", "emerald-rapids"]
    return [*PROGRAM, "negotiate", *given, *options]


def negotiate(
    how: str, firmware: Path, *options: str, timeout: float = PATIENCE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a whole negotiation with a QEMU that misbehaves, and check that it leaves no process.

    ``timeout``: seconds for each step of it. Only a QEMU that hangs uses them up.
    """
    mark = f"{how}#{os.getpid()}#{time.monotonic_ns()}"
    result = subprocess.run(
        command(firmware, "--timeout", str(timeout), *options),
        env=os.environ | {"MISBEHAVE": how, "TDX_CPUID_TEST_MARK": mark} | environment,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    until(lambda: not marked(mark), "no process is left running")
    return result


def marked(mark: str) -> list[int]:
    """The processes that inherited the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("step", STEPS)
def test_a_qemu_that_exits_is_quoted(step: str, tdvf: Path) -> None:
    result = negotiate(f"exit@{step}", tdvf)
    assert result.returncode == 4
    assert "exited with status 1" in result.stderr
    assert "something is badly wrong" in result.stderr


@pytest.mark.parametrize("step", ["greeting", "x-exit-preconfig", "x-query-tdx-vcpu-cpuid"])
def test_a_killed_qemu_is_reported_as_killed(step: str, tdvf: Path) -> None:
    result = negotiate(f"killed@{step}", tdvf)
    assert result.returncode == 4
    assert "SIGKILL" in result.stderr


@pytest.mark.parametrize("step", ["greeting", "x-query-tdx-config-cpuid", "x-exit-preconfig", "quit"])
def test_a_hanging_qemu_is_given_up_and_killed(step: str, tdvf: Path, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    for seconds in LONGER_AND_LONGER:
        result = negotiate(f"hang@{step}", tdvf, timeout=seconds, HANGS=str(hangs))
        if hangs.exists():
            break
    assert hangs.exists(), "it came as far as that"
    if step == "quit":
        assert result.returncode in (0, 1), "the report was complete before QEMU hung"
    else:
        assert result.returncode == 4
        assert f"within {seconds} s" in result.stderr


@pytest.mark.parametrize("how", ["truncate", "babble"])
def test_a_broken_line_is_an_error_not_a_crash(how: str, tdvf: Path) -> None:
    result = negotiate(f"{how}@x-query-tdx-config-cpuid", tdvf)
    assert result.returncode == 4
    assert "x-query-tdx-config-cpuid" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_answer_of_another_shape_names_the_field(tdvf: Path) -> None:
    result = negotiate("shape@x-query-tdx-config-cpuid", tdvf)
    assert result.returncode == 4
    assert "x-query-tdx-config-cpuid answered in a form this version does not know" in result.stderr
    assert "scripts/build-qemu" in result.stderr


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("greeting", "QEMU's greeting came in a form this version does not know: Object missing required field `qemu`"),
        ("query-commands", "query-commands answered in a form this version does not know: Object missing"),
        ("query-cpus-fast", "this version does not know: Object missing required field `cpu-index` - at `$[0]`"),
    ],
)
def test_an_answer_without_its_fields_names_them(where: str, said: str, tdvf: Path) -> None:
    result = negotiate(f"bare@{where}", tdvf)
    assert (result.returncode, said in result.stderr, "Traceback" in result.stderr) == (4, True, False), result.stderr


def test_a_stock_qemu_s_answers_are_checked_as_well(tdvf: Path) -> None:
    """It has none of the commands, so QOM is asked, and what this one answers there is not what QEMU does."""
    result = negotiate("stock@none", tdvf)
    assert result.returncode == 4
    assert "query-cpus-fast answered in a form this version does not know" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_negotiation_leaves_nothing(number: signal.Signals, tdvf: Path, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    mark = f"interrupted#{os.getpid()}#{time.monotonic_ns()}"
    with subprocess.Popen(
        command(tdvf, "--timeout", str(PATIENCE)),
        env=os.environ | {"MISBEHAVE": "hang@x-exit-preconfig", "TDX_CPUID_TEST_MARK": mark, "HANGS": str(hangs)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until(hangs.exists, "QEMU hangs")
        assert len(marked(mark)) == 3, "the orchestrator, the supervisor, the program"
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM), said
    until(lambda: not marked(mark), "no process is left running")


def test_the_same_program_behaving_is_no_error(tdvf: Path) -> None:
    result = negotiate("not@all", tdvf, "--fail-on", "none")
    assert result.returncode == 0, result.stderr
