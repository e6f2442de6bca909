"""On a host with TDX, without any simulation: ``./scripts/test tests/hardware``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qmp_client.boot.model import BootWish, Ending
from qmp_client.boot.td import negotiate_and_boot
from qmp_client.negotiation.setup import Setup
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu import tdx_host
from qmp_client.qemu.command_line import Machine
from tests.boot.guest_image import GREETING, Kind, write
from tests.e2e.grid import ENTRY
from tests.waiting import PATIENCE

LACKING = tdx_host.what_is_missing()
pytestmark = [pytest.mark.hardware, pytest.mark.skipif(bool(LACKING), reason=f"this host has no TDX: {LACKING}")]


def report(qemu: Path, firmware: Path, *options: str) -> Any:
    where = ("--qemu", str(qemu), "--firmware", str(firmware))
    command = [*ENTRY, "negotiate", *where, "--format", "json", "--fail-on", "none", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_td_of_this_host(qemu: Path, firmware: Path) -> None:
    found = report(qemu, firmware, "--hardware", "--smp", "2")
    assert found["environment"]["kvm"] == "/dev/kvm"
    assert found["vcpus"] == 2
    assert found["actual"]


def test_what_is_captured_here_gives_the_same_td_in_the_simulation(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    profile = tmp_path / "host.json"
    subprocess.run([*ENTRY, "capture", profile], check=True)
    here = report(qemu, firmware, "--hardware")
    there = report(qemu, firmware, "--platform", str(profile), "--module", str(profile))
    assert json.loads(profile.read_text())["tdx-module"]["attributes"]
    assert there["configurable"] == here["configurable"]
    assert there["actual"] == here["actual"]


async def test_a_guest_boots_in_the_td(qemu: Path, open_firmware: Path, tmp_path: Path) -> None:
    wish = BootWish(disk=str(write(tmp_path, Kind.POLITE)), pattern=GREETING, seconds=120, memory_mib=512)
    setup = Setup(Machine(qemu, open_firmware), None, Wish(), 30)
    found, booted = await negotiate_and_boot(setup, wish, in_the_td=True)
    assert found.environment.kvm == "/dev/kvm"
    assert (booted.guest, booted.up, booted.ending) == ("td", True, Ending.ORDERLY), booted.why
