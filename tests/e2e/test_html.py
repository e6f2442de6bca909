"""`negotiate --format html` with the real QEMU; tests/html looks at the page in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.html.test_pack import data_of
from tests.waiting import PATIENCE


def _negotiate(qemu: Path, firmware: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "qmp_client.cli.entry", "negotiate", "--format", "html"]
    given = ["--qemu", str(qemu), "--firmware", str(firmware), "--platform", "emerald-rapids", "--cpu", "host"]
    return subprocess.run([*program, *given, *options], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_one_td_as_a_page(qemu: Path, firmware: Path) -> None:
    result = _negotiate(qemu, firmware)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("<!doctype html>")
    data = data_of(result.stdout)
    assert len(data["cells"]) == 1
    assert "avx512f" in data["strings"]
    assert "emerald-rapids" in data["strings"]


def test_both_interfaces_are_two_cells(qemu: Path, firmware: Path) -> None:
    result = _negotiate(qemu, firmware, "--kvm", "both", "--fail-on", "none")
    assert result.returncode == 0, result.stderr
    data = data_of(result.stdout)
    interfaces = [data["strings"][where[data["axes"].index("KVM")]] for where, *_ in data["cells"]]
    assert interfaces == ["upstream", "proposal"]
