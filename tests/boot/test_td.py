"""The way that a host with TDX goes: the guest is let run in the TD that was negotiated.

The simulated TD runs no code, so this guest never comes up; all around it is as on hardware.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from qmp_client.boot.model import BootWish, Ending
from qmp_client.boot.td import negotiate_and_boot
from qmp_client.errors import QemuError
from qmp_client.negotiation.setup import Setup
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine
from qmp_client.qemu.locate import find_qemu
from qmp_client.qemu.simulated import simulation
from tests.boot.guest_image import GREETING, Kind, write
from tests.waiting import PATIENCE

SIMULATION = simulation("1.5.05", "emerald-rapids")


async def test_the_td_is_read_and_then_runs(open_firmware: Path, tmp_path: Path) -> None:
    wish = BootWish(
        disk=str(write(tmp_path, Kind.POLITE)), pattern=GREETING, guest_agent=True, seconds=0.5, memory_mib=256
    )
    machine = Machine(find_qemu(None), open_firmware, smp="2")
    report, booted = await negotiate_and_boot(Setup(machine, SIMULATION, Wish(), PATIENCE), wish, in_the_td=True)
    assert (report.vcpus, report.environment.module) == (2, "1.5.05")
    assert (booted.guest, booted.up, booted.ending) == ("td", False, Ending.FORCED)
    assert booted.why.endswith("within 0.5 s; it wrote nothing")


async def test_a_simulated_host_emulates(open_firmware: Path, tmp_path: Path) -> None:
    disk = str(write(tmp_path, Kind.POLITE))
    wish = BootWish(disk=disk, pattern=GREETING, seconds=PATIENCE, shutdown_seconds=PATIENCE, memory_mib=256)
    machine = Machine(find_qemu(None), open_firmware, cpu="SapphireRapids")
    report, booted = await negotiate_and_boot(Setup(machine, SIMULATION, Wish(), PATIENCE), wish, in_the_td=False)
    assert report.request.cpu == "SapphireRapids"
    assert (booted.guest, booted.up, booted.ending) == ("emulated", True, Ending.ORDERLY)


async def test_a_td_that_cannot_be_built_boots_nothing(open_firmware: Path, tmp_path: Path) -> None:
    wish = BootWish(disk=str(tmp_path / "none.img"), pattern=GREETING)
    machine = Machine(find_qemu(None), open_firmware)
    with pytest.raises(QemuError, match=r"none\.img"):
        await negotiate_and_boot(Setup(machine, SIMULATION, Wish(), PATIENCE), wish, in_the_td=True)
