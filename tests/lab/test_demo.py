"""``scripts/lab-demo`` tells its story, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parent.parent.parent
DEMO = [sys.executable, str(ROOT / "scripts" / "lab" / "demo.py")]


def environment(qemu: Path, firmware: Path, folder: Path) -> dict[str, str]:
    names = {"TDX_CPUID_QEMU": qemu, "TDX_CPUID_FIRMWARE": firmware, "TMPDIR": folder, "PYTHONPATH": ROOT}
    return os.environ | {name: str(value) for name, value in names.items()}


def left_in(folder: Path) -> list[str]:
    """What is left once those that are ending have ended."""
    with suppress(AssertionError):
        until(lambda: not _left_in(folder), "nothing is left")
    return _left_in(folder)


def _left_in(folder: Path) -> list[str]:
    """Files in the folder, and processes that were started with it as their place for temporary files."""
    mark = f"TMPDIR={folder}".encode()
    found = [str(path) for path in folder.iterdir()]
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                found.append(environ.parent.name)
        except OSError:
            continue  # it ended
    return found


def test_the_demo(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO,
        capture_output=True,
        text=True,
        env=environment(qemu, firmware, tmp_path),
        timeout=2 * PATIENCE,
        check=True,
    )
    assert "6 cells: 6 as expected, 0 not, 0 failed" in done.stdout, done.stderr
    assert "likely reason: TDX module 1.5.01 -> 1.5.05\n" in done.stdout
    assert "alpha is drained\n" in done.stdout
    assert re.search(r"alpha +emr +drained +0 +0 +simulated 1\.5\.05", done.stdout)
    assert re.search(r"beta +emr +online +0 +0 +simulated 1\.5\.01", done.stdout)
    assert left_in(tmp_path) == []


def test_ctrl_c_in_the_middle(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(qemu, firmware, tmp_path)
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("== 2."):
            break
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 130
    assert left_in(tmp_path) == []
