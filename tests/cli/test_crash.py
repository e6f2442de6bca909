"""What nobody expected: a sentence, a file with the traceback, and an exit status that means nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from plugin import crash
from plugin.kvm import command as simulation
from qmp_client.cli import program

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
WITHOUT = [sys.executable, str(Path(__file__).parents[1] / "kvm" / "supervisor" / "without.py")]
MEMFD_CREATE = 319


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tdx-cpuid"


def mistaken(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError("a mistake\nof two lines")


def negotiation(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(program, "_status", mistaken)
    return program.run(["predict", "--cpu", "secret\udcff"])


def simulated(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(simulation, "supervise", mistaken)
    return simulation.main(["--", "true"])


@pytest.mark.parametrize("run", [negotiation, simulated])
def test_a_mistake_is_a_sentence_and_a_file(
    run: Callable[[pytest.MonkeyPatch], int],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch) == crash.STATUS == 5
    said = capfd.readouterr().err
    (file,) = state.iterdir()
    assert "ZeroDivisionError: a mistake\n" in said
    assert str(file) in said
    assert "Traceback" not in said
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "in mistaken" in text and "of two lines" in text and "arguments: [" in text


def test_only_the_newest_are_kept(state: Path) -> None:
    state.mkdir(parents=True)
    for number in range(30):
        (state / f"tdx-cpuid-crash-20000101-0000{number:02}-1.txt").touch()
    (state / "something else").touch()
    assert crash.unexpected("x", [], ValueError("new")) == 5
    left = sorted(path.name for path in state.iterdir())
    assert len(left) == crash.KEPT + 1
    assert left[0] == "something else" and "20000101-000011" in left[1]


def test_where_no_file_can_be_the_traceback_is_said(
    state: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    state.parent.touch()
    monkeypatch.setattr(crash, "_temporary", lambda: state / "nowhere")
    try:
        mistaken()
    except ZeroDivisionError as error:
        assert crash.unexpected("tdx-cpuid", [], error) == 5
    assert "in mistaken" in capfd.readouterr().err


def test_the_temporary_folder_serves_where_there_is_no_other(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.parent.touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert crash.unexpected("tdx-cpuid", [], ValueError()) == 5
    assert len(list(tmp_path.glob("tdx-cpuid-crash-*.txt"))) == 1


@pytest.mark.parametrize("number", program.LIMITS)
def test_a_limit_of_this_machine_is_no_mistake(
    number: int, state: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def limited(_: list[str]) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(program, "_status", limited)
    assert program.run([]) == 3
    assert os.strerror(number) in capfd.readouterr().err
    assert not state.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sh", "-c", 'ulimit -n 8; exec "$@"', "-"], "Too many open files"),
        (["sh", "-c", 'ulimit -f 1; exec "$@"', "-"], "ulimit -f"),
        ([*WITHOUT, f"{MEMFD_CREATE}:{errno.EPERM}"], "memfd_create(2) is denied here"),
    ],
)
def test_a_negotiation_within_limits_that_are_too_narrow(words: list[str], said: str, state: Path, tdvf: Path) -> None:
    """`true` is no QEMU, but nothing gets as far as to notice that."""
    negotiate = [*PROGRAM, "negotiate", "--qemu", "true", "--firmware", str(tdvf)]
    done = subprocess.run([*words, *negotiate], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert not state.exists()
