"""Every module version and any platform under the real QEMU; and what no known module does is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import plugin.tdx_module
from plugin.tdx_module import published_names
from tests.waiting import PATIENCE

PLATFORMS = Path(plugin.tdx_module.__file__).parent / "data" / "platforms"
LINUX_RUNS = [name for name in published_names() if not name.startswith("1.0")]
"""Linux's KVM and QEMU are for modules from 1.5 on; 1.0 cannot even be given what KVM_TDX_INIT_VM insists on."""


def negotiate(qemu: Path, firmware: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmp_client.cli.entry", "negotiate"]
    given = ["--qemu", str(qemu), "--firmware", str(firmware), *options]
    return subprocess.run([*command, *given], capture_output=True, text=True, timeout=PATIENCE, check=False)


def report(qemu: Path, firmware: Path, *options: str) -> dict[str, Any]:
    result = negotiate(qemu, firmware, *options, "--format", "json", "--fail-on", "none")
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


NEWS = ("no known TDX module", "every known TDX module", "any more")


@pytest.mark.parametrize("version", LINUX_RUNS)
def test_a_published_version_negotiates_and_is_no_news(qemu: Path, firmware: Path, version: str) -> None:
    said = report(qemu, firmware, "--module", version, "--platform", "granite-rapids")
    assert said["environment"]["module"] == version
    assert not [note for note in said["notes"] if any(word in note for word in NEWS)]
    assert not [line for line in said["lines"] if line["cause"].startswith("not as module")]


def test_all_that_is_new_in_the_made_up_version_is_found(qemu: Path, firmware: Path) -> None:
    said = report(qemu, firmware, "--module", "future", "--platform", "emerald-rapids", "--cpu", "host")
    notes = "\n".join(said["notes"])
    assert "can be configured, which no known TDX module allows: hypervisor (0x1.ecx[31])" in notes
    assert "cannot be configured any more, unlike in TDX module 2.0.18: cldemote (0x7.0.ecx[25])" in notes
    assert "in no known TDX module, nobody asked for it: leaf 0x26" in notes
    assert "set, though every known TDX module clears it: cet_sss (0x7.1.edx[18])" in notes
    unasked = {(line["leaf"], line["register"], line["low"]) for line in said["lines"] if line["verdict"] == "unasked"}
    assert {(0x26, "eax", 0), (0x26, "ebx", 0), (0x26, "ebx", 2), (0x7, "edx", 18)} <= unasked
    assert negotiate(qemu, firmware, "--module", "future", "--platform", "emerald-rapids").returncode == 0


def test_a_platform_from_a_file(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text((PLATFORMS / "granite-rapids.json").read_text())
    mine = report(qemu, firmware, "--platform", str(path))
    theirs = report(qemu, firmware, "--platform", "granite-rapids")
    assert mine["environment"]["platform"] == str(path)
    assert mine["lines"] == theirs["lines"]
    path.write_text("{}")
    result = negotiate(qemu, firmware, "--platform", str(path))
    assert result.returncode == 2
    assert '"cpuid"' in result.stderr
