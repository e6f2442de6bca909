"""Guests that really boot, from a disk, through the firmware, in plain emulation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmp_client.boot.emulated import emulate, emulated_model
from qmp_client.boot.model import Booted, BootWish, Ending
from qmp_client.errors import QemuError
from qmp_client.qemu.command_line import Machine
from qmp_client.qemu.locate import find_qemu
from tests.boot.guest_image import GREETING, Kind, write
from tests.waiting import PATIENCE


async def boot(firmware: Path, disk: Path, *options: str, **wish: object) -> Booted:
    machine = Machine(find_qemu(None), firmware, memory="256M")
    fields = {"pattern": GREETING, "seconds": PATIENCE, "shutdown_seconds": PATIENCE} | wish
    return await emulate(machine, BootWish(disk=str(disk), **fields), options, PATIENCE)  # type: ignore[arg-type]


async def test_a_guest_that_comes_up_and_goes_down(open_firmware: Path, tmp_path: Path) -> None:
    disk = write(tmp_path, Kind.POLITE)
    before = disk.read_bytes()
    booted = await boot(open_firmware, disk)
    assert (booted.up, booted.ending, booted.guest, booted.line) == (True, Ending.ORDERLY, "emulated", GREETING)
    assert booted.console.splitlines()[-2:] == [GREETING, "bye"]
    assert booted.console_bytes > len(booted.console)  # control sequences are left out
    assert disk.read_bytes() == before


async def test_a_guest_that_ignores_the_power_button_is_ended(open_firmware: Path, tmp_path: Path) -> None:
    booted = await boot(open_firmware, write(tmp_path, Kind.DEAF), shutdown_seconds=0.2)
    assert (booted.up, booted.ending) == (True, Ending.FORCED)


async def test_a_guest_that_ends_before_it_is_up(open_firmware: Path, tmp_path: Path) -> None:
    booted = await boot(open_firmware, write(tmp_path, Kind.CRASH), pattern="login:")
    assert (booted.up, booted.ending) == (False, Ending.BY_ITSELF)
    assert booted.why == (
        "the guest is not up: no line of its console matched 'login:' before it reset itself;"
        f" the last line was {GREETING!r}"
    )


async def test_what_a_guest_says_at_the_very_end_counts(open_firmware: Path, tmp_path: Path) -> None:
    booted = await boot(open_firmware, write(tmp_path, Kind.OFF))
    assert booted.up
    assert booted.ending in (Ending.ORDERLY, Ending.BY_ITSELF)


async def test_a_guest_that_is_not_up_in_time(open_firmware: Path, tmp_path: Path) -> None:
    booted = await boot(open_firmware, write(tmp_path, Kind.POLITE), pattern="login:", seconds=0.5, guest_agent=True)
    assert (booted.up, booted.ending, booted.line) == (False, Ending.FORCED, "")
    assert "no line of its console matched 'login:' and its agent did not answer within 0.5 s" in booted.why


async def test_a_guest_that_never_stops_talking(open_firmware: Path, tmp_path: Path) -> None:
    booted = await boot(open_firmware, write(tmp_path, Kind.CHATTY), shutdown_seconds=0.5, console_kib=1)
    assert booted.up
    assert len(booted.console) == 1024 < booted.console_bytes


async def test_a_disk_with_a_comma_in_its_name(open_firmware: Path, tmp_path: Path) -> None:
    disk = write(tmp_path, Kind.OFF).rename(tmp_path / "a,readonly=on.img")
    assert (await boot(open_firmware, disk)).up


async def test_a_disk_that_is_none(open_firmware: Path, tmp_path: Path) -> None:
    with pytest.raises(QemuError, match=r"exited with status 1.*Could not open .*/none\.img"):
        await boot(open_firmware, tmp_path / "none.img")
    disk = tmp_path / "broken.qcow2"
    disk.write_bytes(b"no qcow2")
    with pytest.raises(QemuError, match="Image is not in qcow2 format"):
        await boot(open_firmware, disk)


async def test_an_option_that_qemu_does_not_know(open_firmware: Path, tmp_path: Path) -> None:
    with pytest.raises(QemuError, match="invalid option"):
        await boot(open_firmware, write(tmp_path, Kind.OFF), "-nonsense")


async def test_nothing_is_left_behind(open_firmware: Path, tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208  these are links that come and go
    await boot(open_firmware, write(tmp_path, Kind.DEAF), pattern="never", seconds=0.2)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_model_in_emulation() -> None:
    assert emulated_model("host") == "max"
    assert emulated_model("host,-avx512f") == "max,-avx512f"
    assert emulated_model("SapphireRapids,+sgx") == "SapphireRapids,+sgx"
