"""A real agent on a real broker, driven from outside."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import aiomqtt
import msgspec
import pytest

from qmp_client.lab import topics
from qmp_client.lab.broker import reply_to
from qmp_client.lab.wire import (
    Capabilities,
    Drain,
    Drift,
    Job,
    Outcome,
    Progress,
    Rejection,
    Result,
    State,
    Status,
    encode,
    schema_of,
)
from qmp_client.qemu.locate import find_qemu
from tests.lab.conftest import Start
from tests.lab.processes import LAB, AgentProcess, Broker, Listener, PatientQemu, listening, online
from tests.waiting import PATIENCE, eventually

REPLY = topics.reply(LAB, "me")


def stored(agent: AgentProcess, query: str) -> list[tuple[str | int | bytes, ...]]:
    with sqlite3.connect(f"file:{agent.state}?mode=ro", uri=True) as db:
        return list(db.execute(query))


async def result(listener: Listener, job: str) -> Result:
    return await listener.message(topics.result(LAB, job), Result)


async def test_a_job_from_its_arrival_to_its_result(broker: Broker, agent: Start) -> None:
    agent(limits={"jobs-at-once": 2})
    async with listening(broker.address) as listener:
        await online(listener)
        can = await listener.message(topics.capabilities(LAB, "alpha"), Capabilities)
        assert (can.kvm, can.qemu, can.modules, can.jobs_at_once) == ("simulated", ("built",), ("1.5.05",), 2)
        job = Job(id="one", cpu="host,-avx512f", vcpus=2)
        await listener.submit(job, response_topic=REPLY, correlation=b"\x00\xff")
        done = await result(listener, "one")
        assert (done.outcome, done.host, done.kvm) == (Outcome.MEASURED, "alpha", "simulated"), done.reason
        assert done.report is not None
        assert done.versions is not None
        assert (done.report.request.cpu, done.report.vcpus) == ("host,-avx512f", 2)
        assert done.versions.module == "1.5.05"
        for state in State:
            await listener.message(topics.progress(LAB, "one"), Progress, lambda said, state=state: said.state is state)  # type: ignore[misc]
        answer = await listener.until(lambda heard: heard.topic.value == REPLY and b"/result/" in heard.payload)
    assert msgspec.json.decode(answer.payload, type=Result) == done
    assert reply_to(answer) == (None, b"\x00\xff")
    assert answer.properties is not None
    said = answer.properties.json()  # type: ignore[no-untyped-call]
    assert said["ContentType"] == "application/json"
    assert said["UserProperty"] == [("schema", schema_of(Result))]
    assert 0 < said["MessageExpiryInterval"] <= 24 * 3600


async def test_what_is_no_job_is_rejected_and_recorded(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(b"\xff{", response_topic=REPLY, correlation=b"7")
        await listener.submit(b"x" * 10_000)
        await listener.submit(json.dumps({"id": "two", "qemu": "mine"}).encode())
        await listener.submit(Job(id="three"), response_topic=topics.status(LAB, "alpha"))
        await listener.submit(Job(id="four"))
        await listener.submit(Job(id="four", cpu="host,-avx"))
        topic = topics.rejected(LAB, "alpha")
        for reason in ("not a job", "10000 bytes", "QEMU mine", "response topic", "another job has the id four"):
            await listener.message(topic, Rejection, lambda said, reason=reason: reason in said.reason)  # type: ignore[misc]
        answer = await listener.until(lambda heard: heard.topic.value == REPLY)
        assert reply_to(answer)[1] == b"7"
        assert (await result(listener, "four")).outcome is Outcome.MEASURED
    assert [name for (name,) in stored(alpha, "SELECT job FROM rejections ORDER BY number")] == [
        "",
        "",
        "two",
        "",
        "four",
    ]
    assert stored(alpha, "SELECT id FROM jobs") == [("four",)]


async def test_a_job_that_fails_has_a_result_that_says_why(broker: Broker, agent: Start) -> None:
    agent(**{"cpu-models": ["*"]})
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one", cpu="hots"))
        done = await result(listener, "one")
    assert (done.outcome, done.report) == (Outcome.FAILED, None)
    assert "no CPU model hots" in done.reason


async def test_a_job_ends_when_its_time_is_up(broker: Broker, agent: Start, tmp_path: Path) -> None:
    sleepy = tmp_path / "qemu-that-says-nothing"
    sleepy.write_text("#!/bin/sh\nexec sleep 1000\n")
    sleepy.chmod(0o755)
    agent(qemu={"sleepy": str(sleepy)}, limits={"seconds": 2})
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one"))
        done = await result(listener, "one")
    assert done.outcome is Outcome.FAILED
    assert "2 s" in done.reason


async def test_an_option_reaches_qemu_as_the_configuration_has_it(broker: Broker, agent: Start) -> None:
    agent(options={"wrong": ["-global", "no such thing"]})
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one", options=("wrong",)))
        done = await result(listener, "one")
    assert done.outcome is Outcome.FAILED
    assert "no such thing" in done.reason


async def test_memory_is_limited(broker: Broker, agent: Start) -> None:
    agent(limits={"memory-mib": 256})
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one"))
        done = await result(listener, "one")
    assert done.outcome is Outcome.FAILED
    assert "memory" in done.reason.lower(), done.reason


async def test_more_jobs_than_may_wait_are_rejected(broker: Broker, agent: Start, patient_qemu: PatientQemu) -> None:
    agent(**patient_qemu.config | {"limits": {"jobs-waiting": 1}})
    async with listening(broker.address) as listener:
        await online(listener)
        for name in ("one", "two"):
            await listener.submit(Job(id=name))
        said = await listener.message(topics.rejected(LAB, "alpha"), Rejection)
        assert (said.job, said.reason) == ("two", "1 jobs wait here, which is this host's limit")


async def test_a_pool_shares_its_jobs(broker: Broker, agent: Start) -> None:
    agent("alpha")
    agent("beta")
    async with listening(broker.address) as listener:
        for host in ("alpha", "beta"):
            await online(listener, host)
        for number in range(4):
            await listener.submit(Job(id=f"job-{number}"))
        hosts = {(await result(listener, f"job-{number}")).host for number in range(4)}
        assert hosts == {"alpha", "beta"}
        await listener.submit(Job(id="for-beta"), topics.host_jobs(LAB, "beta"))
        assert (await result(listener, "for-beta")).host == "beta"


async def test_a_drained_host_takes_no_more_jobs_of_the_pool(broker: Broker, agent: Start) -> None:
    alpha = agent("alpha")
    agent("beta")
    async with listening(broker.address) as listener:
        for host in ("alpha", "beta"):
            await online(listener, host)
        wish, status = topics.drain(LAB, "alpha"), topics.status(LAB, "alpha")
        await listener.connection.say(wish, Drain(drain=True), retain=True)
        await listener.message(status, Status, lambda said: said.state == "drained")
        alpha.kill()
        await listener.message(status, Status, lambda said: said.state == "offline")
        listener.heard.clear()
        alpha.start()
        await listener.message(status, Status, lambda said: said.state == "drained")
        for number in range(3):
            await listener.submit(Job(id=f"job-{number}"))
        assert {(await result(listener, f"job-{number}")).host for number in range(3)} == {"beta"}
        await listener.connection.say(wish, Drain(drain=False), retain=True)
        await online(listener, "alpha")


async def test_sigterm_is_an_end_in_order(broker: Broker, agent: Start, patient_qemu: PatientQemu) -> None:
    alpha = agent(**patient_qemu.config)
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one"))
        await listener.message(topics.progress(LAB, "one"), Progress, lambda said: said.state is State.RUNNING)
        assert await asyncio.to_thread(alpha.kill, signal.SIGTERM) == 0
        await listener.message(topics.status(LAB, "alpha"), Status, lambda said: said.state == "offline")
        assert "Traceback" not in alpha.log
        await listener.submit(Job(id="nobody-is-there"))
        patient_qemu.go()
        listener.heard.clear()
        alpha.start()
        assert (await result(listener, "one")).outcome is Outcome.MEASURED


async def test_a_full_disk_ends_the_agent_in_words_and_it_is_offline(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        alpha.limit(resource.RLIMIT_FSIZE, alpha.state.stat().st_size)
        await listener.submit(Job(id="one"))
        assert await asyncio.to_thread(alpha.wait) == 3
        assert f"tdx-cpuid: {alpha.state} cannot be written: " in alpha.log
        assert "Traceback" not in alpha.log
        await listener.message(topics.status(LAB, "alpha"), Status, lambda said: said.state == "offline")
        alpha.start()
        assert (await result(listener, "one")).outcome is Outcome.MEASURED, "the broker still had it"


async def test_a_host_that_can_start_nothing_says_so(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        alpha.limit(resource.RLIMIT_NOFILE, alpha.descriptors)
        await listener.submit(Job(id="one"))
        done = await result(listener, "one")
    assert (done.outcome, done.reason) == (
        Outcome.FAILED,
        "this host could not start a process for the job: Too many open files",
    )


async def test_an_agent_that_ends_while_the_broker_is_stuck_is_offline(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        broker.send(signal.SIGSTOP)
        try:
            assert await asyncio.to_thread(alpha.kill, signal.SIGTERM) == 0
        finally:
            broker.send(signal.SIGCONT)
        await listener.message(topics.status(LAB, "alpha"), Status, lambda said: said.state == "offline")


async def test_two_agents_of_one_name_are_told(broker: Broker, agent: Start, tmp_path: Path) -> None:
    first = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        second = AgentProcess(broker, tmp_path / "elsewhere", "alpha", drift={"cpu": []})
        second.start()
        try:
            said = "was here as host alpha: each agent needs its own --host"
            await eventually(lambda: said in first.log, f"the log says {said!r}")
        finally:
            second.kill()


async def test_the_same_job_again_gets_its_result_again(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one"))
        first = await result(listener, "one")
        await listener.submit(Job(id="one"), response_topic=REPLY)
        again = await listener.message(REPLY, Result)
    assert again == first
    assert stored(alpha, "SELECT attempts FROM jobs") == [(1,)]


async def test_a_job_that_kills_its_agent_is_given_up(broker: Broker, agent: Start, patient_qemu: PatientQemu) -> None:
    alpha = agent(**patient_qemu.config | {"limits": {"attempts": 2, "seconds": PATIENCE}})
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one"))
        for attempt in (1, 2):
            began = [(attempt,)]
            await eventually(lambda began=began: stored(alpha, "SELECT attempts FROM jobs") == began, f"{began}")  # type: ignore[misc]
            alpha.kill()
            alpha.start()
        done = await result(listener, "one")
    assert done.outcome is Outcome.FAILED
    assert "ended 2 times" in done.reason


async def test_a_broker_that_forgot_everything_is_told_again(broker: Broker, agent: Start, tmp_path: Path) -> None:
    agent()
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.submit(Job(id="one"))
        first = await result(listener, "one")
    await asyncio.to_thread(broker.kill)
    (tmp_path / "mosquitto.db").unlink(missing_ok=True)
    broker.start()
    async with listening(broker.address) as listener:
        assert await result(listener, "one") == first


async def test_an_update_that_changes_what_guests_see_is_told(broker: Broker, agent: Start) -> None:
    watched = {"drift": {"cpu": ["host"]}}
    alpha = agent(modules=["1.5.01"], **watched)
    async with listening(broker.address) as listener:
        await online(listener)
        await listener.until(lambda heard: "/results/measure-alpha-" in heard.topic.value)
        for modules, moved in ((["1.5.01"], ""), (["1.5.05"], "TDX module 1.5.01 -> 1.5.05")):
            await asyncio.to_thread(alpha.kill, signal.SIGTERM)
            alpha.configure(modules=modules, **watched)
            listener.heard.clear()
            alpha.start()
            await listener.until(lambda heard: "/results/measure-alpha-" in heard.topic.value and not heard.retain)
            if moved:
                drift = await listener.message(topics.drift(LAB), Drift)
                assert (drift.host, drift.cpu, drift.likely, drift.moved) == ("alpha", "host", moved, (moved,))
                assert drift.changes
            else:
                await listener.message(topics.status(LAB, "alpha"), Status, lambda said: said.waiting == 0)
                assert not [heard for heard in listener.heard if heard.topic.value == topics.drift(LAB)]


async def test_a_qemu_that_is_replaced_under_a_running_agent_is_measured_and_told(
    broker: Broker, agent: Start, tmp_path: Path
) -> None:
    program = tmp_path / "qemu"

    def install(more: str) -> None:
        new = tmp_path / "new"
        new.write_text(f'#!/bin/sh\nexec {find_qemu(None)} "$@" {more}\n')
        new.chmod(0o755)
        new.replace(program)

    install("")
    agent(qemu={"nightly": str(program)}, drift={"cpu": ["host"], "look-every-seconds": 0.05})
    async with listening(broker.address) as listener:
        await listener.until(lambda heard: "/results/measure-alpha-" in heard.topic.value)
        install("-cpu host,-avx512f")
        drift = await listener.message(topics.drift(LAB), Drift)
        assert re.fullmatch(r"QEMU (\S+) \(\w{16}\) -> \1 \(\w{16}\)", drift.likely)
        assert (drift.changes[0].name, drift.changes[0].before, drift.changes[0].now) == ("avx512f", 1, 0)


async def test_it_measures_on_schedule_and_tells_nothing_when_nothing_changed(broker: Broker, agent: Start) -> None:
    agent(drift={"cpu": ["host"], "every-minutes": 0.005})
    async with listening(broker.address) as listener:
        measured: set[str] = set()

        def third(heard: aiomqtt.Message) -> bool:
            if "/results/measure-alpha-" in heard.topic.value:
                measured.add(heard.topic.value)
            return len(measured) == 3

        await listener.until(third)
        assert not [heard for heard in listener.heard if heard.topic.value == topics.drift(LAB)]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"qemu": {"mine": "/nonexistent/qemu"}}, 2, "qemu.mine"),
        ({"modules": ["1.5.5"]}, 2, "1.5.05"),
        ({"modules": [], "platforms": []}, 3, "no TDX"),
        ({"firmware": "/nonexistent.fd"}, 3, "get-firmware"),
        ({"colour": "red"}, 2, "colour"),
    ],
)
def test_a_configuration_that_cannot_work_ends_the_agent(
    broker: Broker, agent: Start, change: dict[str, object], code: int, said: str
) -> None:
    alpha = agent(**change)
    assert alpha.wait() == code
    assert said in alpha.log
    assert "Traceback" not in alpha.log


async def test_a_stored_job_that_cannot_be_read_ends_as_failed_and_the_others_run(broker: Broker, agent: Start) -> None:
    alpha = agent(limits={"jobs-at-once": 1, "attempts": 1})
    async with listening(broker.address) as listener:
        await online(listener)
        await asyncio.to_thread(alpha.kill, signal.SIGTERM)
        later = encode(Job(id="later")).replace(b"{", b'{"from-tomorrow":1,', 1)
        with closing(sqlite3.connect(alpha.state)) as db, db:
            insert = "INSERT INTO jobs (id, payload, digest) VALUES (?, ?, '')"
            db.execute(insert, ("later", later))
            db.execute(insert, ("well", encode(Job(id="well", qemu="built"))))
        alpha.start()
        done = await result(listener, "later")
        assert (done.outcome, "from-tomorrow" in done.reason) == (Outcome.FAILED, True), done.reason
        assert (await result(listener, "well")).outcome is Outcome.MEASURED
        assert stored(alpha, "SELECT payload FROM jobs WHERE id = 'later'") == [(later,)]


async def test_an_agent_says_who_has_its_file_locked(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        with closing(sqlite3.connect(alpha.state, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            await listener.submit(Job(id="one"))
            assert await asyncio.to_thread(alpha.wait) == 3
        assert re.search(rf"for 5 s process {os.getpid()} \(.*\) has had it locked", alpha.log), alpha.log
        assert "Traceback" not in alpha.log
        assert "disk" not in alpha.log
        alpha.start()
        assert (await result(listener, "one")).outcome is Outcome.MEASURED, "the broker still had it"
