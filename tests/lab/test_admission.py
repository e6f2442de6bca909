"""A job can only name what the configuration lists; anything else is refused with a reason."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, find, given
from hypothesis import strategies as st

from qmp_client.lab import topics
from qmp_client.lab.admission import Refusal, admit, check_reply
from qmp_client.lab.config import Config, parse
from qmp_client.lab.wire import JOB_LIMIT, Boot, Job, schema_of

CONFIG = parse(
    {
        "qemu": {"stable": "/opt/qemu/stable", "next": "/opt/qemu/next"},
        "firmware": "/opt/tdvf.fd",
        "machines": ["q35", "pc-q35-10.2"],
        "cpu-models": ["host", "SapphireRapids*"],
        "modules": ["1.5.05", "2.0.18"],
        "platforms": ["emerald-rapids"],
        "options": {"log": ["-D", "/dev/null"]},
        "limits": {"max-vcpus": 8},
        "boot": {"seconds": 50, "disks": {"debian": "/srv/debian.qcow2", "tiny": "/srv/tiny.img"}},
    }
)
HARDWARE = parse({"qemu": {"stable": "/opt/qemu/stable"}, "firmware": "/opt/tdvf.fd"})


def payload(**fields: object) -> bytes:
    return json.dumps({"schema": schema_of(Job), "id": "one", **fields}).encode()


def test_what_a_job_leaves_open_is_the_first_of_each_list() -> None:
    job = admit(payload(), CONFIG)
    assert (job.qemu, job.machine, job.module, job.platform) == ("stable", "q35", "1.5.05", "emerald-rapids")
    assert (job.cpu, job.vcpus, job.choose) == ("host", 1, "model")


def test_what_a_job_names_is_taken() -> None:
    job = admit(payload(cpu="SapphireRapids-v2,-avx512f", qemu="next", module="2.0.18", vcpus=8), CONFIG)
    assert (job.cpu, job.qemu, job.module, job.vcpus) == ("SapphireRapids-v2,-avx512f", "next", "2.0.18", 8)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"qemu": "nightly"}, "nightly is not on this host's list: stable, next"),
        ({"qemu": "/bin/sh"}, "$.qemu"),
        ({"machine": "microvm"}, "machine type microvm"),
        ({"machine": "q35,smm=on"}, "$.machine"),
        ({"module": "1.5.01"}, "TDX module 1.5.01"),
        ({"platform": "native"}, "platform native"),
        ({"cpu": "Skylake"}, "CPU model Skylake"),
        ({"cpu": "host,phys-bits=46"}, "$.cpu"),
        ({"guest": "windows"}, "no guest and no control of a guest is called 'windows'"),
        ({"guest": "Linux; rm -rf"}, "$.guest"),
        ({"cpu": "host -device foo"}, "$.cpu"),
        ({"cpu": "host,vendor=on\n"}, "$.cpu"),
        ({"vcpus": 9}, "at most 8"),
        ({"vcpus": 0}, "$.vcpus"),
        ({"choose": "/etc/passwd"}, "$.choose"),
        ({"arguments": ["-device", "foo"]}, "unknown field `arguments`"),
        ({"options": ["-device"]}, "$.options"),
        ({"options": ["device"]}, "the option device is not on this host's list: log"),
        ({"options": "log"}, "$.options"),
        ({"options": ["log"] * 17}, "$.options"),
        ({"id": "a/b"}, "$.id"),
        ({"id": "#"}, "$.id"),
        ({"id": "one\n"}, "$.id"),
        ({"schema": "tdx-cpuid/lab/job/2"}, "tdx-cpuid/lab/job/2"),
    ],
)
def test_anything_else_is_refused_with_the_reason(fields: dict[str, object], said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        admit(payload(**fields), CONFIG)
    assert said in str(refusal.value)


def test_a_refusal_that_quotes_the_payload_moves_no_terminal() -> None:
    with pytest.raises(Refusal, match="unknown field") as refusal:
        admit(payload(**{"\x1b[2J\x9b5m\nINFO accepted two": 1}), CONFIG)
    assert str(refusal.value).isprintable()


def test_a_host_with_tdx_lets_nobody_choose_its_module() -> None:
    assert admit(payload(), HARDWARE).module == ""
    with pytest.raises(Refusal, match="its own TDX module"):
        admit(payload(module="1.5.05"), HARDWARE)


def test_a_large_payload_is_not_even_parsed() -> None:
    with pytest.raises(Refusal, match=f"at most {JOB_LIMIT}"):
        admit(payload(padding="x" * JOB_LIMIT), CONFIG)


def test_a_boot_that_leaves_things_open() -> None:
    job = admit(payload(boot={"pattern": "login:"}), CONFIG)
    assert job.boot == Boot(disk="debian", pattern="login:", seconds=50)
    job = admit(payload(boot={"guest-agent": True, "disk": "tiny", "seconds": 5}), CONFIG)
    assert job.boot == Boot(disk="tiny", guest_agent=True, seconds=5)


@pytest.mark.parametrize(
    ("boot", "reason"),
    [
        ({"disk": "other", "pattern": "x"}, "the disk other is not on this host's list: debian, tiny"),
        ({}, "what tells that the guest is up"),
        ({"pattern": "("}, "no regular expression: missing )"),
        ({"pattern": "a{99999999999999999999}"}, "no regular expression: the repetition number is too large"),
        ({"pattern": "x", "seconds": 51}, "51 s to boot; this host waits at most 50"),
        ({"pattern": "x", "seconds": 0}, "greater than|> 0"),
        ({"pattern": "x" * 257}, "length <= 256"),
        ({"pattern": "x", "disk": "../x"}, "regex"),
        ({"pattern": "x", "kernel": "y"}, "unknown field `kernel`"),
    ],
)
def test_what_a_host_does_not_boot(boot: dict[str, object], reason: str) -> None:
    with pytest.raises(Refusal, match=reason.replace("(", r"\(").replace(")", r"\)")):
        admit(payload(boot=boot), CONFIG)
    with pytest.raises(Refusal, match="this host boots no guests"):
        admit(payload(boot={"pattern": "x"}), HARDWARE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(Job.__struct_encode_fields__) | st.text(max_size=8)
WORDS = st.sampled_from(
    ["host", "stable", "q35", "1.5.05", "emerald-rapids", "model", "one", "host,+aes", "log", "\n", ""]
)
PATTERNS = st.text("ab()[]{}|^$*+?\\\\.,<=!:P#&~-019\n", max_size=30)
BOOTS = st.fixed_dictionaries(
    {},
    optional={
        "disk": st.sampled_from(["debian", "", "other", 1]),
        "pattern": PATTERNS | JSON,
        "guest-agent": st.booleans() | JSON,
        "seconds": st.floats() | st.integers(),
        "more": JSON,
    },
)
NEARLY = st.builds(
    lambda fields, boot: {"schema": schema_of(Job), "id": "one", **({"boot": boot} if boot else {}), **fields},
    st.dictionaries(FIELDS, WORDS | JSON, max_size=2),
    BOOTS,
)
JOBS = (st.dictionaries(FIELDS, WORDS | JSON, max_size=9) | NEARLY).map(lambda fields: json.dumps(fields).encode())


def test_some_of_these_jobs_boot_a_guest() -> None:
    """So that the test below does not only see refusals."""

    def boots(fields: dict[str, object]) -> bool:
        try:
            return admit(json.dumps(fields).encode(), CONFIG).boot is not None
        except Refusal:
            return False

    assert find(NEARLY, boots)


@given(st.binary(max_size=200) | JOBS)
@example(b"[" * JOB_LIMIT)
@example(b'{"id":"\xff"}')
@example(b'{"id":"one","id":"two"}')
def test_no_payload_gets_past_the_lists(data: bytes) -> None:
    try:
        job = admit(data, CONFIG)
    except Refusal as refusal:
        assert str(refusal)
        return
    assert job.qemu in CONFIG.qemu
    assert job.machine in CONFIG.machines
    assert job.module in CONFIG.modules
    assert job.platform in CONFIG.platforms
    assert 1 <= job.vcpus <= CONFIG.limits.max_vcpus
    assert CONFIG.allows_model(job.cpu)
    assert set(job.options) <= set(CONFIG.options)
    if job.boot is not None and CONFIG.boot is not None:
        assert job.boot.disk in CONFIG.boot.disks
        assert 0 < (job.boot.seconds or 0) <= CONFIG.boot.seconds
        assert job.boot.guest_agent or re.compile(job.boot.pattern).pattern
    assert not set(job.cpu + job.id) & set(" \n\t\0/#+$;&|") - {"+"}
    assert "+" not in job.id
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job, "what is stored can be read again"
    assert admit(msgspec.json.encode(job), CONFIG) == job


@pytest.mark.parametrize(
    "topic", ["tdx-cpuid/bay/hosts/a/status", "tdx-cpuid/bay/replies/", "tdx-cpuid/bay/replies/#", "x", "", "$SYS/x"]
)
def test_an_answer_goes_nowhere_but_below_replies(topic: str) -> None:
    with pytest.raises(Refusal, match="response topic"):
        check_reply("bay", topic, None, "one")


def test_a_reply_topic_is_taken() -> None:
    check_reply("bay", topics.reply("bay", "me"), b"1", "one")
    check_reply("bay", None, None, "one")
    with pytest.raises(Refusal, match="correlation"):
        check_reply("bay", topics.reply("bay", "me"), b"x" * 129, "one")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qemu": {}}, "qemu"),
        ({"qemu": {"a/b": "/bin/true"}}, "$.qemu"),
        ({"platforms": []}, "belong together"),
        ({"limits": {"seconds": 0}}, "$.limits.seconds"),
        ({"limit": {}}, "unknown field `limit`"),
        ({"drift": {"cpu": ["Skylake"]}}, "drift.cpu"),
    ],
)
def test_a_wrong_configuration_names_the_key(change: dict[str, Any], said: str) -> None:
    right: dict[str, Any] = {
        "qemu": {"a": "/bin/true"},
        "firmware": "f",
        "modules": ["1.5.05"],
        "platforms": ["emerald-rapids"],
    }
    assert isinstance(parse(right), Config)
    with pytest.raises(ValueError, match=r".") as wrong:
        parse(right | change)
    assert said in str(wrong.value)
