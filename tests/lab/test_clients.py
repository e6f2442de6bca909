"""submit, watch and drain as a user types them, against a real broker and real agents."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from qmp_client.lab import topics
from qmp_client.lab.broker import reply_to
from qmp_client.lab.wire import Drain, Job, Outcome, Progress, Rejection, Result, State, Status, encode
from tests.lab.conftest import Start
from tests.lab.processes import LAB, POOL, Broker, Listener, PatientQemu, listening
from tests.waiting import PATIENCE


def command(broker: Broker, name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "qmp_client.cli.entry", name, "--broker", broker.url, "--lab", LAB, *words]


def client(broker: Broker, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(broker, name, *words), capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


def start(broker: Broker, name: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(broker, name, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


async def soon(broker: Broker, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(client, broker, name, *words)


async def online(broker: Broker, *hosts: str) -> None:
    async with listening(broker.address) as listener:
        for host in hosts:
            await state(listener, host, "online")


async def state(listener: Listener, host: str, wanted: str) -> None:
    await listener.message(topics.status(LAB, host), Status, lambda said: said.state == wanted)


async def test_a_grid_is_spread_over_the_pool(broker: Broker, agent: Start, tmp_path: Path) -> None:
    agent("alpha")
    agent("beta")
    await online(broker, "alpha", "beta")
    axes = ["--cpu", "host", "--cpu", "host,-avx512f", "--smp", "1", "--smp", "2"]
    pages = ["--html", str(tmp_path / "grid.html"), "--junit", str(tmp_path / "grid.xml")]
    done = await soon(broker, "submit", "--pool", POOL, "--id", "grid", *axes, *pages, "--format", "json")
    assert done.returncode == 0, "no word is broken"
    results = [msgspec.json.decode(line, type=Result) for line in done.stdout.splitlines()]
    assert [result.job for result in results] == ["grid-1", "grid-2", "grid-3", "grid-4"]
    assert {result.host for result in results} == {"alpha", "beta"}
    assert {result.outcome for result in results} == {Outcome.MEASURED}
    assert "4 done" in done.stderr
    assert "host,-avx512f" in (tmp_path / "grid.html").read_text()
    assert 'tests="4"' in (tmp_path / "grid.xml").read_text()
    again = await soon(broker, "submit", "--result", "grid-3", "--result", "grid-1", "--fail-on", "none")
    assert again.returncode == 0, "the broker has kept them"
    assert "2 cells: 2 as expected, 0 not, 0 failed; 2 known already" in again.stdout
    nothing = await soon(broker, "submit", "--result", "grid-1", "--console", str(tmp_path / "console"))
    assert "is not written: the result has no console" in nothing.stderr


async def test_one_job_shows_its_report(broker: Broker, agent: Start, tmp_path: Path) -> None:
    agent()
    await online(broker, "alpha")
    grid = tmp_path / "grid.toml"
    grid.write_text('cpu = "host,-avx512f"\nsmp = "2"\nfail-on = "none"\n')
    done = await soon(broker, "submit", "--host", "alpha", "--file", str(grid))
    assert (done.returncode, done.stdout.splitlines()[0].split(",")[1]) == (0, " simulated TDX"), done.stderr
    assert "2 vCPUs" in done.stdout
    assert "avx512f" in done.stdout


async def test_a_job_that_nobody_takes(broker: Broker, agent: Start) -> None:
    for words, code, said in (
        (["--no-wait"], 3, f"no agent takes jobs of pool {POOL}: 1 of 1 jobs were not sent"),
        (["--timeout", "1"], 4, "1 of 1 job is not done after 1 s"),
    ):
        left = await soon(broker, "submit", "--pool", POOL, *words)
        assert (left.returncode, said in left.stderr, left.stdout) == (code, True, ""), left.stderr
    assert "has ever connected as host nobody" in (await soon(broker, "submit", "--host", "nobody", "--no-wait")).stderr
    waiting = start(broker, "submit", "--pool", POOL, "--fail-on", "none")
    assert waiting.stderr is not None
    lines = [await asyncio.to_thread(waiting.stderr.readline) for _ in range(2)]
    assert f"no agent takes jobs of pool {POOL}; waiting for somebody\n" in lines
    agent()
    await asyncio.to_thread(waiting.communicate, timeout=PATIENCE)
    assert waiting.returncode == 0


async def test_a_rejected_job_says_why(broker: Broker, agent: Start) -> None:
    agent()
    await online(broker, "alpha")
    done = await soon(broker, "submit", "--pool", POOL, "--cpu", "host", "--cpu", "Skylake", "--fail-on", "none")
    assert done.returncode == 2
    assert "the CPU model Skylake is not on this host's list: host" in done.stderr
    assert "1 cell: 1 as expected" in done.stdout
    assert done.stdout.endswith(" cells a minute, 1 host\n")
    failed = await soon(broker, "submit", "--pool", POOL, "--cpu", "host,+no-such-feature", "--fail-on", "none")
    assert failed.returncode == 4
    assert "no-such-feature" in failed.stdout
    assert "host,+no-such-feature on default (smp 1, module default, default, upstream): alpha: " in failed.stderr


async def test_nothing_that_a_host_answers_moves_the_terminal(broker: Broker) -> None:
    async with listening(broker.address, topics.jobs(LAB, POOL)) as host:
        asked = asyncio.create_task(soon(broker, "submit", "--pool", POOL, "--id", "j", "--smp", "1", "--smp", "2"))
        bad = "\x1b[2J\x9b5mno\x07"
        no = Rejection(host="evil", job="j-1", digest="", reason=bad)
        failed = Result(
            job="j-2", host="evil", pool=POOL, outcome=Outcome.FAILED, seconds=1, at=0, reason=bad, kvm="simulated"
        )
        heard = await host.until(lambda _: True)
        for said in (no, failed):
            await host.connection.say(reply_to(heard)[0] or "", said)
        done = await asked
    assert done.returncode == 4
    assert "no" in done.stdout
    assert "rejected by evil: j-1: " in done.stderr
    assert all(one.isprintable() or one == "\n" for one in done.stdout + done.stderr)


async def test_submit_outlives_the_broker(broker: Broker, agent: Start) -> None:
    agent()
    await online(broker, "alpha")
    waiting = start(broker, "submit", "--pool", POOL, "--smp", "4", "--id", "one", "--fail-on", "none")
    async with listening(broker.address) as listener:
        await listener.message(topics.progress(LAB, "one"), Progress, lambda said: said.state is State.RUNNING)
    await asyncio.to_thread(broker.kill)
    assert waiting.stderr is not None
    said = ""
    while "the broker is gone" not in said:
        said = await asyncio.to_thread(waiting.stderr.readline)
        assert said, "it ended with the broker"
    broker.start()
    out, complaints = await asyncio.to_thread(waiting.communicate, timeout=PATIENCE)
    assert waiting.returncode == 0, complaints
    assert "one on alpha" in out


async def test_ctrl_c_leaves_the_jobs_running_and_says_how_to_come_back(
    broker: Broker, agent: Start, patient_qemu: PatientQemu
) -> None:
    agent(**patient_qemu.config)
    await online(broker, "alpha")
    waiting = start(broker, "submit", "--pool", POOL, "--id", "one")
    async with listening(broker.address) as listener:
        await listener.message(topics.progress(LAB, "one"), Progress, lambda said: said.state is State.RUNNING)
        waiting.send_signal(signal.SIGINT)
        _, complaints = await asyncio.to_thread(waiting.communicate, timeout=PATIENCE)
        assert (waiting.returncode, "Traceback" in complaints) == (130, False), complaints
        patient_qemu.go()
        done = await listener.message(topics.result(LAB, "one"), Result)
        assert done.outcome is Outcome.MEASURED, done.reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --pool or --host"),
        (["--pool", "a", "--host", "b"], "either --pool or --host"),
        (["--pool", "a/b"], "--pool a/b"),
        (["--pool", "a", "--cpu", "Sapphire*"], "--cpu Sapphire*"),
        (["--pool", "a", "--cpu", "host,+"], "--cpu host,+: a lab takes a model"),
        (["--pool", "a", "--console", "c"], "--console: without --boot"),
        (["--pool", "a", "--no-wait", "--html", "h"], "--no-wait does not wait"),
        (["--result", "a", "--until", "b"], "--result only fetches"),
        (["--result", "a", "--until-agent"], "--result only fetches"),
        (["--pool", "a", "--smp", "many"], "$.vcpus"),
        (["--pool", "a", "--id", "#"], "--id #"),
        (["--pool", "a", "--choose", "all"], "$.choose"),
        (["--result", "a", "--pool", "b"], "--result only fetches"),
        (["--pool", "a", "--fail-on", "much"], "no such class or verdict"),
    ],
)
def test_wrong_words(broker: Broker, words: list[str], said: str) -> None:
    done = client(broker, "submit", *words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("name", ["submit", "watch", "drain"])
def test_no_broker(broker: Broker, name: str) -> None:
    broker.kill()
    words = {"submit": ["--pool", POOL], "watch": ["--once"], "drain": ["alpha"]}[name]
    done = client(broker, name, *words)
    assert (done.returncode, "cannot be reached" in done.stderr) == (3, True), done.stderr
    assert "Traceback" not in done.stderr


async def test_drain_and_back(broker: Broker, agent: Start) -> None:
    alpha = agent()
    await online(broker, "alpha")
    done = await soon(broker, "drain", "alpha")
    assert (done.returncode, done.stdout) == (0, "alpha is drained\n"), done.stderr
    assert (await soon(broker, "drain", "alpha", "--undo")).stdout == "alpha takes jobs again\n"
    assert (await soon(broker, "drain", "alpha", "--no-wait", "--undo")).stdout == "alpha has been told\n"
    hurried = await soon(broker, "drain", "alpha", "--timeout", "1e-9")
    assert "is not drained after 1e-09 s; it could not be told" in hurried.stderr
    unknown = await soon(broker, "drain", "alhpa")
    assert (unknown.returncode, "did you mean alpha?" in unknown.stderr) == (2, True)
    await asyncio.to_thread(alpha.kill, signal.SIGTERM)
    assert "alpha is offline" in (await soon(broker, "drain", "alpha")).stdout


async def test_drain_says_a_number_once(broker: Broker) -> None:
    async with listening(broker.address) as alpha:

        async def be(state: Literal["online", "draining", "drained"], running: int = 0, waiting: int = 0) -> None:
            said = Status(host="alpha", pool=POOL, state=state, running=running, waiting=waiting)
            await alpha.connection.say(topics.status(LAB, "alpha"), said, retain=True)

        await be("online", 1, 2)
        draining = start(broker, "drain", "alpha")
        await alpha.message(topics.drain(LAB, "alpha"), Drain)
        for running, waiting in ((1, 2), (2, 1), (1, 2), (1, 0), (0, 1)):
            await be("draining", running, waiting)
        await be("drained")
        said, complaints = await asyncio.to_thread(draining.communicate, timeout=PATIENCE)
        assert (draining.returncode, said) == (0, "alpha is drained\n")
        assert complaints == "alpha finishes 3 jobs\nalpha finishes 1 job\n"


async def test_a_host_that_a_large_lab_does_not_have(broker: Broker) -> None:
    async with listening(broker.address) as lab:
        for number in range(12):
            there = Status(host=f"host-{number:02}", pool=POOL, state="online")
            await lab.connection.say(topics.status(LAB, there.host), there, retain=True)
    done = await soon(broker, "drain", "zebra")
    assert "it knows host-00, host-01, " in done.stderr
    assert "host-09 and 2 more\n" in done.stderr


async def test_watch_shows_the_lab(broker: Broker, agent: Start) -> None:
    agent()
    async with listening(broker.address) as listener:
        await state(listener, "alpha", "online")
        await listener.submit(b'{"schema":"\x1b[2J', topics.status(LAB, "nonsense"), retain=True)
        evil = Rejection(host="evil", job="one", digest="", reason="\x1b[2J")
        await listener.submit(encode(evil), topics.rejected(LAB, "evil"), retain=True)
        other = Status(host="alpha", pool=POOL, state="drained")
        await listener.submit(encode(other), topics.status(LAB, "somebody"), retain=True)
    shown = await soon(broker, "watch", "--once")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"alpha +emr +online +0 +0 +simulated 1\.5\.05 +built", shown.stdout)
    assert re.search(r"one +evil +\ufffd\[2J", shown.stdout)
    assert "\x1b" not in shown.stdout
    assert "drained" not in shown.stdout


async def test_a_table_that_changes_needs_a_terminal(broker: Broker) -> None:
    done = await soon(broker, "watch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--once shows it as it is" in done.stderr


async def test_watch_leaves_the_screen_when_it_is_told_to_end(broker: Broker) -> None:
    async with listening(broker.address) as host:
        await host.connection.say(
            topics.status(LAB, "alpha"), Status(host="alpha", pool=POOL, state="online"), retain=True
        )
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    watching = await asyncio.create_subprocess_exec(*command(broker, "watch"), stdout=its, stderr=its, env=environment)
    os.close(its)
    said = b""
    while b"alpha" not in said:
        said += await asyncio.to_thread(os.read, ours, 4096)
    watching.terminate()
    with suppress(OSError):  # the other end is closed
        while more := await asyncio.to_thread(os.read, ours, 4096):
            said += more
    os.close(ours)
    assert await watching.wait() == 143
    assert said.count(b"\x1b[?1049h") == said.count(b"\x1b[?1049l") == 1
    assert b"Traceback" not in said


async def test_watch_as_json_says_everything_until_it_is_ended(broker: Broker, agent: Start) -> None:
    agent()
    watching = start(broker, "watch", "--format", "json")
    assert watching.stdout is not None
    said: list[dict[str, Any]] = []
    await online(broker, "alpha")
    async with listening(broker.address) as listener:
        await listener.submit(Job(id="one"))
        while not said or said[-1]["message"].get("state") != "done":
            said.append(json.loads(await asyncio.to_thread(watching.stdout.readline)))
    watching.send_signal(signal.SIGINT)
    await asyncio.to_thread(watching.communicate, timeout=PATIENCE)
    assert watching.returncode == 0
    assert [one["message"]["state"] for one in said if one["topic"] == topics.progress(LAB, "one")][-1] == "done"
    assert any(one["topic"] == topics.capabilities(LAB, "alpha") for one in said)
