"""A captured profile in place of a module version, under the real QEMU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=True)


def test_negotiate_takes_the_profile_as_the_module(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    run("sim", "--platform", "granite-rapids", "--", *PROGRAM, "capture", str(file))
    options = ["--qemu", str(qemu), "--firmware", str(firmware), "--format", "json", "--fail-on", "none"]
    reports = [
        json.loads(run("negotiate", *options, "--platform", "granite-rapids", "--module", module).stdout)
        for module in ("1.5.05", str(file))
    ]
    assert reports[0]["lines"] == reports[1]["lines"]
    assert reports[0]["configurable"] == reports[1]["configurable"]
