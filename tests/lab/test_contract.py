"""The published schemas are those of the code, and an independent validator finds real messages to be like them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from jsonschema import Draft202012Validator, ValidationError

from qmp_client.lab import topics
from qmp_client.lab.wire import MESSAGES, Change, Drain, Drift, Job, Status, Versions, encode, schema_of
from tests.lab.conftest import Start
from tests.lab.processes import LAB, Broker, listening

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs" / "lab"


def schemas() -> dict[str, dict[str, Any]]:
    """Each published schema by the name that messages give."""
    found = {}
    for path in (DOCS / "schemas").glob("*.json"):
        schema = json.loads(path.read_text())
        found[schema["$id"].removeprefix("urn:").replace(":", "/")] = schema
    return found


def validate(payload: bytes) -> str:
    """Hold a message against the schema that it names; return the name. Raises ValidationError."""
    message = json.loads(payload)
    Draft202012Validator(schemas()[message["schema"]]).validate(message)
    return str(message["schema"])


def test_the_files_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "lab" / "contract.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_text_has_not_the_indentation_of_the_code() -> None:
    """Docstrings have it up to Python 3.12; the files are the same whichever Python writes them."""

    def texts(node: object) -> list[str]:
        if isinstance(node, dict):
            node = list(node.values())
        return [text for one in node for text in texts(one)] if isinstance(node, list) else [str(node)]

    for path in (DOCS / "asyncapi.json", *(DOCS / "schemas").glob("*.json")):
        assert [text for text in texts(json.loads(path.read_text())) if "\n  " in text] == []


def test_there_is_a_valid_schema_for_every_message() -> None:
    assert set(schemas()) == {schema_of(message) for message in MESSAGES}
    for schema in schemas().values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = json.loads((DOCS / "asyncapi.json").read_text())

    def follow(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                place: Any = document
                for part in reference.removeprefix("#/").split("/"):
                    place = place[part]
            for inner in node.values():
                follow(inner)
        elif isinstance(node, list):
            for inner in node:
                follow(inner)

    follow(document)
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert topics.result("{lab}", "{job}") in addresses
    assert len(addresses) == len(document["operations"]) == len(document["channels"])


@pytest.mark.parametrize(
    "change", [{"vcpus": 0}, {"cpu": "host -device x"}, {"id": "a/b"}, {"more": 1}, {"options": ["-x"]}, {"id": None}]
)
def test_the_schema_refuses_what_an_agent_refuses(change: dict[str, object]) -> None:
    right = json.loads(encode(Job(id="one")))
    validate(json.dumps(right).encode())
    with pytest.raises(ValidationError):
        validate(json.dumps(right | change).encode())


def as_published(message: aiomqtt.Message) -> dict[str, Any]:
    """What the AsyncAPI document says of how a message is sent; and that it says of itself what it is."""
    document = json.loads((DOCS / "asyncapi.json").read_text())
    address = {name: channel["address"].split("/") for name, channel in document["channels"].items()}
    words = message.topic.value.split("/")
    (name,) = (
        name
        for name, parts in address.items()
        if len(parts) == len(words) and all(p == w or p[0] == "{" for p, w in zip(parts, words, strict=True))
    )
    assert message.properties is not None
    said = message.properties.json()  # type: ignore[no-untyped-call]
    assert said["ContentType"] == "application/json"
    if message.payload != b"{}":
        assert said["UserProperty"] == [("schema", json.loads(message.payload)["schema"])]
    (binding,) = (
        operation["bindings"]["mqtt"]
        for operation in document["operations"].values()
        if operation["channel"]["$ref"] == f"#/channels/{name}"
    )
    return dict(binding)


async def test_what_a_real_agent_says_is_as_published(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        status = topics.status(LAB, "alpha")
        await listener.message(status, Status, lambda said: said.state == "online")
        await listener.submit(Job(id="one"), response_topic=topics.reply(LAB, "me"))
        await listener.submit(b"{}")
        await listener.until(lambda heard: heard.topic.value == topics.result(LAB, "one"))
        await listener.until(lambda heard: heard.topic.value == topics.rejected(LAB, "alpha"))
        await listener.connection.say(topics.drain(LAB, "alpha"), Drain(drain=True), retain=True)
        await listener.message(status, Status, lambda said: said.state == "drained")
        await asyncio.to_thread(alpha.kill)
        await listener.message(status, Status, lambda said: said.state == "offline")  # its last will
        assert {as_published(message)["qos"] for message in listener.heard} == {1}
        assert {message.qos for message in listener.heard} == {1}
        async with listening(broker.address) as late:
            await late.connection.say(topics.reply(LAB, "end"), Drain(drain=True))
            await late.until(lambda heard: heard.topic.value == topics.reply(LAB, "end"))
            kept = {message.topic.value for message in late.heard if message.retain}
        ours = {message.topic.value for message in listener.heard if as_published(message)["retain"]}
        assert kept == ours
        heard = {validate(message.payload) for message in listener.heard if message.payload != b"{}"}
    same = Versions(module="1.5.05", microcode="", kernel="", qemu="", firmware="", platform="")
    drift = Drift(
        host="alpha", pool="emr", cpu="host", kvm="simulated", job="one", at=0, likely="", moved=(), before=same,
        now=same, changes=(Change(field="0x7.0.ebx[16]", name="avx512f", before=1, now=0),),
    )  # fmt: skip
    assert heard | {validate(encode(drift))} == set(schemas())
