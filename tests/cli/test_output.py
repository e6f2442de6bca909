"""Where output cannot go, and what it looks like where it can: pipes that close, full disks, narrow terminals."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from qmp_client.report.console import console_for
from tests.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
ROOT = str(Path(__file__).resolve().parents[2])
SHORT = [
    ["explain", "hle"],
    ["explain", "hle", "--format", "json"],
    ["predict", "--fail-on", "none"],
    ["contract", "1.0", "1.5.05"],
    ["doctor", "--help"],
    ["--help"],
]


@pytest.mark.parametrize("words", SHORT, ids=" ".join)
def test_a_reader_that_has_gone_is_no_broken_policy(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([*PROGRAM, *words], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, ""), "128 + SIGPIPE, as a shell has it"


@pytest.mark.parametrize("words", SHORT[:4], ids=" ".join)
def test_a_full_disk_is_said_in_a_sentence(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 3
    assert result.stderr == "tdx-cpuid: the output cannot be written: No space left on device\n"


def test_closed_standard_streams_are_no_error() -> None:
    script = f"exec {sys.executable} -m qmp_client.cli.entry explain hle <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], check=False, cwd=ROOT).returncode == 0


def test_a_terminal_without_the_letters_still_shows_the_rest() -> None:
    result = subprocess.run(
        [*PROGRAM, "predict", "--fail-on", "none"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert r"\xb7 TDX module 1.5.05" in result.stdout


def test_words_of_the_user_are_no_markup_and_lines_end_where_they_end() -> None:
    out = io.StringIO()
    console = console_for(out)
    console.print("cpu [red]  ")
    console.print("path [/x]")
    assert out.getvalue() == "cpu [red]\npath [/x]\n"


def on_a_terminal(words: list[str], columns: int) -> str:
    """What the command shows on a terminal that wide."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "50", "NO_COLOR": "1", "TERM": "xterm"}
    with subprocess.Popen([*PROGRAM, *words], stdin=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            shown += part
            if not part:
                break
        process.wait(PATIENCE)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [40, 62, 80, 100, 132])
def test_who_decided_is_seen_on_a_narrow_terminal(columns: int) -> None:
    shown = on_a_terminal(["predict", "--cpu", "host,-avx512f", "--platform", "granite-rapids"], columns)
    assert "…" not in shown
    words = " ".join(shown.split())
    for said in ("avx512-vpopcntdq", "xfam[5]", "module-rule: monitor", "forced-off", "0x7.1"):
        assert said in words
