"""The example broker set-up, as it is in docs/examples/lab: who gets in, and who may say what."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest
import trustme
from aiomqtt import MqttError
from cryptography.hazmat.primitives import serialization

from qmp_client.errors import UsageError
from qmp_client.lab import topics
from qmp_client.lab.address import Address, At
from qmp_client.lab.broker import Connection, NotTaken
from qmp_client.lab.config import parse
from qmp_client.lab.store import Letter
from qmp_client.lab.wire import Drain, Job, Message, Outcome, Result, Status, encode, schema_of
from tests.lab.processes import AgentProcess, Broker, listening
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples" / "lab"
LAB, POOL, HOST = "lab", "emr", "emr-01"
NAMES = (HOST, "emr-02", "alice", "wall", "mallory")


def certify(ca: trustme.CA, folder: Path, name: str) -> None:
    """Write NAME.pem and NAME.key."""
    certificate = ca.issue_cert(name, common_name=name)
    certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    for part in certificate.cert_chain_pems:
        part.write_to_path(folder / f"{name}.pem", append=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's authority, everybody's certificate, and somebody with one of another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name in (*NAMES, "127.0.0.1"):
        certify(ca, folder, name)
    (folder / "127.0.0.1.pem").rename(folder / "broker.pem")
    (folder / "127.0.0.1.key").rename(folder / "broker.key")
    other = folder / "other"
    other.mkdir()
    certify(trustme.CA(), other, "alice")
    return folder


def address(folder: Path, name: str | None, port: int = 0) -> Address:
    whose = (str(folder / f"{name}.pem"), str(folder / f"{name}.key")) if name else (None, None)
    tls = aiomqtt.TLSParameters(ca_certs=str(folder / "ca.pem"), certfile=whose[0], keyfile=whose[1])
    return Address("127.0.0.1", port, tls)


@pytest.fixture
def secured(tmp_path: Path, certificates: Path) -> Iterator[Broker]:
    """Mosquitto with the example's files; only the paths and the port are others."""
    acl = tmp_path / "acl"
    acl.write_text((EXAMPLES / "acl").read_text())
    text = (EXAMPLES / "mosquitto.conf").read_text()
    text = text.replace("/etc/mosquitto/certs/", f"{certificates}/").replace("/etc/mosquitto/acl", str(acl))
    ours = ("listener ", "persistence ", "persistence_location ", "autosave_interval ")
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", *ours))]
    if os.getuid() == 0:
        for path in (acl, *certificates.iterdir()):
            path.chmod(0o644 if path.is_file() else 0o755)
    broker = Broker(tmp_path, *lines, address=address(certificates, "alice"))
    broker.start()
    yield broker
    broker.kill()


def client(broker: Broker, certificates: Path, name: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["--ca", str(certificates / "ca.pem")]
    if name:
        options += ["--certificate", str(certificates / f"{name}.pem"), "--key", str(certificates / f"{name}.key")]
    command = [sys.executable, "-m", "qmp_client.cli.entry", words[0], "--broker", broker.url, "--lab", LAB]
    return subprocess.run(
        [*command, *options, *words[1:]], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


class Hosts(AgentProcess):
    """An agent of the example's lab, with a certificate."""

    def __init__(self, broker: Broker, folder: Path, certificates: Path, host: str, name: str) -> None:
        super().__init__(broker, folder, host, drift={"cpu": []})
        self.options = ["--ca", str(certificates / "ca.pem"), "--lab", LAB]
        self.options += ["--certificate", str(certificates / f"{name}.pem"), "--key", str(certificates / f"{name}.key")]


async def deliver(to: Address, topic: str, message: Message) -> None:
    async with Connection(to) as connection:
        await connection.deliver(Letter(topic, encode(message), schema_of(type(message)), 60))


async def test_a_job_from_alice_to_an_agent_and_back(secured: Broker, certificates: Path, tmp_path: Path) -> None:
    agent = Hosts(secured, tmp_path, certificates, HOST, HOST)
    agent.start()
    try:
        words = ("submit", "--pool", POOL, "--id", "one", "--fail-on", "none", "--timeout", str(PATIENCE))
        done = await asyncio.to_thread(client, secured, certificates, "alice", *words)
        assert done.returncode == 0, done.stderr + agent.log
        assert "one on emr-01" in done.stdout
        shown = await asyncio.to_thread(client, secured, certificates, "wall", "watch", "--once")
        assert (shown.returncode, HOST in shown.stdout) == (0, True), shown.stderr
        drained = await asyncio.to_thread(client, secured, certificates, "alice", "drain", HOST)
        assert drained.stdout == "emr-01 is drained\n", drained.stderr
        assert "refuses" not in agent.log
    finally:
        agent.kill()


RESULT = Result(job="one", host=HOST, pool=POOL, outcome=Outcome.FAILED, seconds=0, at=0, kvm="simulated")
STATUS = Status(host="emr-02", pool=POOL, state="online")


@pytest.mark.parametrize(
    ("name", "topic", "message"),
    [
        (HOST, topics.status(LAB, "emr-02"), STATUS),
        (HOST, topics.host_jobs(LAB, "emr-02"), Job(id="one")),
        (HOST, topics.jobs(LAB, POOL), Job(id="one")),
        ("alice", topics.result(LAB, "one"), RESULT),
        ("alice", topics.status(LAB, "emr-02"), STATUS),
        ("wall", topics.jobs(LAB, POOL), Job(id="one")),
        ("wall", topics.drain(LAB, HOST), Drain(drain=True)),
        ("mallory", topics.jobs(LAB, POOL), Job(id="one")),
        ("mallory", topics.reply(LAB, "alice"), RESULT),
    ],
)
async def test_nobody_says_what_is_not_theirs_to_say(
    secured: Broker, certificates: Path, name: str, topic: str, message: Message
) -> None:
    with pytest.raises(NotTaken, match="Not authorized"):
        await deliver(address(certificates, name, secured.port), topic, message)


async def test_an_outsider_hears_nothing(secured: Broker, certificates: Path) -> None:
    async with listening(secured.address, "tdx-cpuid/#") as allowed:
        to = address(certificates, "mallory", secured.port)
        async with listening(to, "tdx-cpuid/#", f"$share/{POOL}/tdx-cpuid/{LAB}/jobs/{POOL}") as outsider:
            await allowed.submit(Job(id="one"), topics.jobs(LAB, POOL))
            await allowed.until(lambda heard: heard.topic.value == topics.jobs(LAB, POOL))
            assert outsider.heard == []


async def test_an_agent_with_a_certificate_of_another_host_says_why_it_cannot_work(
    secured: Broker, certificates: Path, tmp_path: Path
) -> None:
    agent = Hosts(secured, tmp_path, certificates, "emr-02", HOST)
    agent.start()
    try:
        await eventually(lambda: re.search("not authori[sz]ed", agent.log, re.I), "the log says why")
        assert "Traceback" not in agent.log
    finally:
        agent.kill()


@pytest.mark.parametrize("who", ["nobody", "of another authority", "without TLS"])
def test_who_does_not_get_in(secured: Broker, certificates: Path, who: str) -> None:
    if who == "without TLS":
        command = [sys.executable, "-m", "qmp_client.cli.entry", "watch", "--once"]
        done = subprocess.run(
            [*command, "--broker", f"mqtt://127.0.0.1:{secured.port}"], capture_output=True, text=True, check=False
        )
    else:
        name = None if who == "nobody" else "other/alice"
        done = client(secured, certificates, name, "watch", "--once")
    assert (done.returncode, "cannot be reached" in done.stderr) == (3, True), done.stderr
    assert "Traceback" not in done.stderr
    if who == "of another authority":
        assert "unknown ca" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--certificate", "alice.pem", "--key", "wall.key"], 2, "certificate in PEM with its private key"),
        (["--certificate", "alice.pem"], 2, "and no --key"),
        (["--certificate", "alice.pem", "--key", "secret.key"], 2, "has a passphrase"),
        (["--key", "alice.key"], 2, "--key goes with --certificate"),
        (["--ca", "alice.key"], 2, "--ca: alice.key has no certificates"),
        (["--ca", "nowhere.pem"], 3, "no file nowhere.pem"),
        (["--password-file", "alice.key"], 2, "whose password?"),
        (["--broker", "mqtt://alice@[::1]", "--password-file", "secret.key"], 3, "cannot be reached"),
        (
            ["--broker", "mqtt://alice@192.0.2.1", "--password-file", "secret.key"],
            2,
            "between here and 192.0.2.1 could",
        ),
        (["--broker", "mqtt://alice@[::1]", "--password-file", "bytes"], 2, "bytes is no text"),
        (["--broker", "mqtts://[::1"], 2, "Invalid IPv6"),
    ],
)
def test_wrong_files_are_told_before_anybody_connects(
    certificates: Path, words: list[str], code: int, said: str
) -> None:
    private = trustme.CA().issue_cert("alice").private_key_pem.bytes()
    secret = serialization.load_pem_private_key(private, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (certificates / "secret.key").write_bytes(secret)
    (certificates / "bytes").write_bytes(b"\xff")
    command = [sys.executable, "-m", "qmp_client.cli.entry", "watch", "--once", "--broker", "mqtts://127.0.0.1:1"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, cwd=certificates)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "insecure"),
    [
        ("mqtt://alice@localhost", False),
        ("mqtt://alice@127.8.0.1", False),
        ("mqtts://alice@broker.example", False),
        ("mqtt://alice@broker.example", True),
    ],
)
def test_a_password_goes_where_nobody_reads_it_or_where_the_user_says(tmp_path: Path, url: str, insecure: bool) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    assert At(url, LAB, password_file=file, insecure=insecure).address().password == "secret"
    if insecure:
        with pytest.raises(UsageError, match=r"broker\.example could read the password"):
            At(url, LAB, password_file=file).address()


def write_password(file: Path) -> None:
    subprocess.run(["mosquitto_passwd", "-b", "-c", file, "alice", "right"], check=True, capture_output=True)


async def test_a_password_has_to_be_right(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    await asyncio.to_thread(write_password, passwords)
    passwords.chmod(0o644)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    broker.start()
    try:
        async with Connection(broker.address._replace(user="alice", password="right")):
            pass
        for user, password in (("alice", "wrong"), (None, None)):
            with pytest.raises(MqttError, match=r"[Nn]ot authori[sz]ed|user name or password"):
                async with Connection(broker.address._replace(user=user, password=password)):
                    pass
    finally:
        broker.kill()


def test_the_example_configuration_is_one() -> None:
    text = (ROOT / "docs" / "lab" / "how-to.md").read_text()
    config = parse(tomllib.loads(text.partition("```toml\n")[2].partition("```")[0]))
    assert config.allows_model("SapphireRapids-v3,-avx512f")
    assert list(config.options) == ["hugepages"]
