"""Jobs that boot a guest: accepted, run, told, and nothing of them left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qmp_client.boot.model import Ending
from qmp_client.lab import topics
from qmp_client.lab.config import parse
from qmp_client.lab.wire import Boot, Capabilities, Job, Outcome, Progress, Rejection, Result, State
from tests.boot.guest_image import GREETING, Kind, write
from tests.lab.conftest import Start
from tests.lab.processes import LAB, POOL, AgentProcess, Broker, listening, online
from tests.waiting import LONGER_AND_LONGER, PATIENCE, eventually


@pytest.fixture
def config(open_firmware: Path, tmp_path: Path) -> dict[str, Any]:
    disks = {str(kind): str(write(tmp_path, kind)) for kind in (Kind.POLITE, Kind.DEAF)}
    return {
        "firmware": str(open_firmware),
        "boot": {"seconds": PATIENCE, "shutdown-seconds": 1, "memory-mib": 256, "disks": disks},
    }


def submit(broker: Broker, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmp_client.cli.entry", "submit", "--broker", broker.url, "--lab", LAB, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)


async def test_a_boot_job(broker: Broker, agent: Start, config: dict[str, Any]) -> None:
    agent(**config)
    async with listening(broker.address) as listener:
        can = await listener.message(topics.capabilities(LAB, "alpha"), Capabilities)
        assert can.disks == ("polite", "deaf")
        await online(listener)
        await listener.submit(Job(id="up", boot=Boot(pattern=GREETING)))
        done = await listener.message(topics.result(LAB, "up"), Result)
        assert done.outcome is Outcome.MEASURED, done.reason
        assert done.report is not None
        assert done.boot is not None
        assert (done.boot.guest, done.boot.up, done.boot.ending) == ("emulated", True, Ending.ORDERLY)


async def test_a_guest_that_is_not_up_is_a_failure_with_everything_that_is_known(
    broker: Broker, agent: Start, config: dict[str, Any]
) -> None:
    agent(**config)
    async with listening(broker.address) as listener:
        await online(listener)
        for seconds in LONGER_AND_LONGER:
            job = f"down-{seconds}"
            await listener.submit(Job(id=job, boot=Boot(disk="deaf", pattern="login:", seconds=seconds)))
            done = await listener.message(topics.result(LAB, job), Result)
            assert done.outcome is Outcome.FAILED
            assert done.report is not None
            assert done.boot is not None
            assert done.reason == done.boot.why
            assert f"'login:' within {seconds} s" in done.reason
            if GREETING in done.boot.console:
                return
    raise AssertionError("the console of a guest that is not up is not told")


async def test_a_pattern_that_takes_for_ever_ends_with_its_job(
    broker: Broker, agent: Start, config: dict[str, Any], tmp_path: Path
) -> None:
    """The guest has as long as the machine needs to write the line; then the search for it outlasts every limit."""
    config["boot"]["disks"] = {"endless": str(write(tmp_path, Kind.DEAF, "a" * 60))}
    reasons = []
    async with listening(broker.address) as listener:
        for seconds in LONGER_AND_LONGER:
            config["boot"]["seconds"] = 3 * seconds
            one: AgentProcess = agent(**config, limits={"seconds": seconds})
            await online(listener)
            await listener.submit(Job(id=f"slow-{seconds}", boot=Boot(pattern="^(a+)+b$")))
            done = await listener.message(topics.result(LAB, f"slow-{seconds}"), Result)
            assert done.outcome is Outcome.FAILED
            await nothing_runs(config["firmware"])
            reasons.append(done.reason)
            if done.reason == f"not done after {4 * seconds + 1} s, which is this host's limit":
                return
            await asyncio.to_thread(one.kill, signal.SIGTERM)
            listener.heard.clear()
    raise AssertionError(reasons)


async def test_a_host_without_disks_boots_nothing(broker: Broker, agent: Start) -> None:
    agent()
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="no", boot=Boot(pattern="x")))
        no = await listener.message(topics.rejected(LAB, "alpha"), Rejection)
        assert no.reason == "this host boots no guests: its configuration has no `[boot]`"


async def test_an_agent_that_is_killed_takes_its_guest_along_and_boots_it_again(
    broker: Broker, agent: Start, config: dict[str, Any]
) -> None:
    one = agent(**config)
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="again", boot=Boot(disk="deaf", pattern=GREETING, seconds=PATIENCE)))
        await listener.message(topics.progress(LAB, "again"), Progress, lambda said: said.state is State.RUNNING)
        await until_a_guest_runs(config["firmware"])
        one.kill(signal.SIGKILL)
        await nothing_runs(config["firmware"])
        one.start()
        done = await listener.message(topics.result(LAB, "again"), Result)
        assert done.boot is not None, done.reason
        assert (done.boot.up, done.boot.ending) == (True, Ending.FORCED)
    await nothing_runs(config["firmware"])


def test_submit_boots(broker: Broker, agent: Start, config: dict[str, Any], tmp_path: Path) -> None:
    agent(**config)
    console = tmp_path / "console.txt"
    words = ("--pool", POOL, "--boot", "polite", "--fail-on", "none")
    up = submit(broker, *words, "--until", GREETING, "--console", str(console))
    assert up.returncode == 0, up.stderr
    said = up.stdout.splitlines()[-1]
    assert said.startswith("guest, in plain emulation, not in a TD: up after ")
    assert said.endswith(f" s ({GREETING!r} on its console); it switched itself off when it was asked to")
    assert console.read_text().splitlines()[-2:] == [GREETING, "bye"]
    down = submit(broker, *words, "--until", "login:", "--boot-seconds", "5", "--format", "json")
    assert down.returncode == 4
    assert json.loads(down.stdout)["boot"]["up"] is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--boot", "x"), "what tells that the guest is up? --until PATTERN"),
        (("--until", "x"), "--boot DISK names it"),
        (("--boot", "x", "--until", "y", "--cpu", "a", "--cpu", "b", "--console", "c"), "--console goes with one job"),
        (("--boot", "x y", "--until", "y"), "no job can be made of this"),
    ],
)
def test_half_a_wish(words: tuple[str, ...], sentence: str) -> None:
    command = [sys.executable, "-m", "qmp_client.cli.entry", "submit", "--broker", "mqtt://127.0.0.1:1"]
    done = subprocess.run([*command, "--pool", POOL, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_a_disk_that_is_not_there_ends_the_agent(broker: Broker, agent: Start, config: dict[str, Any]) -> None:
    config["boot"]["disks"]["polite"] = "/nonexistent.img"
    one: AgentProcess = agent(**config)
    assert one.wait() == 2
    assert "`boot.disks.polite`: /nonexistent.img is not a file that can be read" in one.log


def test_a_boot_table_without_disks_is_refused() -> None:
    with pytest.raises(ValueError, match="disks"):
        parse({"qemu": {"a": "/q"}, "firmware": "f", "boot": {}})


def guests(firmware: str) -> list[Path]:
    """QEMUs in emulation with this image."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = cmdline.read_bytes().split(b"\0")
            if os.fsencode(firmware) in words and any(word.startswith(b"tcg") for word in words):
                found.append(cmdline)
    return found


async def until_a_guest_runs(firmware: str) -> None:
    await eventually(lambda: guests(firmware), "a guest runs")


async def nothing_runs(firmware: str) -> None:
    await eventually(lambda: not guests(firmware), "no guest runs")
