"""A Linux with the real QEMU guest agent, on a disk and a console."""

from __future__ import annotations

import os
from pathlib import Path

from qmp_client.boot.emulated import emulate
from qmp_client.boot.model import Booted, BootWish, Ending
from qmp_client.qemu.command_line import Machine
from qmp_client.qemu.locate import find_qemu
from tests.boot.guest_image import Kind, write
from tests.waiting import PATIENCE


async def boot(disk: Path, firmware: Path, **wish: object) -> Booted:
    folder = Path(os.environ["TDX_CPUID_TEST_GUEST"])  # scripts/test-guest makes it
    kernel = ("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd"), "-append", "console=ttyS0 quiet")
    fields = {"disk": str(disk), "seconds": PATIENCE, "shutdown_seconds": PATIENCE} | wish
    return await emulate(Machine(find_qemu(None), firmware), BootWish(**fields), kernel, PATIENCE)  # type: ignore[arg-type]


async def test_the_agent_tells_that_the_guest_is_up_and_switches_it_off(open_firmware: Path, tmp_path: Path) -> None:
    disk = write(tmp_path, Kind.OFF)
    booted = await boot(disk, open_firmware, pattern="^linux guest is up$", guest_agent=True)
    assert booted.up, booted.why + booted.console
    assert booted.line == "linux guest is up"
    assert booted.agent[0].isdigit()
    assert booted.ending is Ending.ORDERLY
    assert "switched off by the agent" in booted.console
    assert "TINY GUEST  is the disk" in booted.console
