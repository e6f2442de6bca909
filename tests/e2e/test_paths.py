"""Paths whose bytes are no UTF-8: they are used as they are, and a report shows each such byte by its number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.tdx_module import catalog

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
ODD = os.fsdecode(b"odd\xff")


def run(*words: str | Path) -> bytes:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


@pytest.mark.e2e
def test_qemu_firmware_and_platform(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    for name, target in (("qemu", qemu), ("firmware", firmware), ("platform", platform_file())):
        (tmp_path / f"{name}-{ODD}.json").symlink_to(target)
    given = {name: str(tmp_path / f"{name}-{ODD}.json") for name in ("qemu", "firmware", "platform")}
    words = [word for name, path in given.items() for word in (f"--{name}", path)]
    report = json.loads(run("negotiate", *words, "--fail-on", "none", "--format", "json"))
    assert report["environment"]["qemu"] == f"{tmp_path}/qemu-odd\\xff.json"
    assert report["environment"]["platform"] == f"{tmp_path}/platform-odd\\xff.json"


def platform_file() -> Path:
    return Path(catalog._PLATFORMS) / "granite-rapids.json"


def test_a_prediction_for_a_platform(tmp_path: Path) -> None:
    path = tmp_path / f"{ODD}.json"
    path.symlink_to(platform_file())
    assert b"odd\\xff.json" in run("predict", "--platform", path, "--fail-on", "none")


def test_a_recorded_command_with_such_a_word(tmp_path: Path) -> None:
    talk = tmp_path / "talk.jsonl"
    assert run("sim", "--record", talk, "--", "echo", ODD) == b"odd\xff\n"
    assert run("replay", talk).splitlines()[0] == b"echo 'odd\\xff'"


def test_a_grid_takes_text_alone(tmp_path: Path) -> None:
    words = ["matrix", "--qemu", "true", "--cpu", ODD]
    done = subprocess.run([*PROGRAM, *words], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"is not text in UTF-8" in done.stderr
