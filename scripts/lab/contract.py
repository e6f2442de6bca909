"""Writes what others need to talk to a lab, from the types and topics that the code itself uses.

One JSON Schema a message, and an AsyncAPI 3.0 document from the agent's point of view.
With --check it only says whether the files are up to date (exit status 1 if not).
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from qmp_client.lab import topics
from qmp_client.lab.wire import (
    MESSAGES,
    Capabilities,
    Delivered,
    Drain,
    Drift,
    Job,
    Message,
    Progress,
    Rejection,
    Result,
    Status,
    schema_of,
)

LAB = Path(__file__).resolve().parents[2] / "docs" / "lab"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PARAMETERS = {
    "lab": "The lab's name: a broker may have several, and nothing crosses them.",
    "pool": "Hosts that are alike; each job of a pool goes to one of them.",
    "host": "A host's name.",
    "job": "The job's id.",
    "client": "Whatever the client likes to call itself.",
}


class Channel(NamedTuple):
    """A topic, what is said there, and which of it an agent does."""

    topic: Callable[..., str]
    messages: tuple[type[Message], ...]
    action: str
    retained: bool = False
    """Whether the broker keeps the last one for those who come late."""


CHANNELS = (
    Channel(topics.jobs, (Job,), "receive"),
    Channel(topics.host_jobs, (Job,), "receive"),
    Channel(topics.drain, (Drain,), "receive", retained=True),
    Channel(topics.status, (Status,), "send", retained=True),
    Channel(topics.capabilities, (Capabilities,), "send", retained=True),
    Channel(topics.delivered, (Delivered,), "send", retained=True),
    Channel(topics.rejected, (Rejection,), "send"),
    Channel(topics.progress, (Progress,), "send"),
    Channel(topics.result, (Result,), "send", retained=True),
    Channel(topics.drift, (Drift,), "send"),
    Channel(topics.reply, (Progress, Result, Rejection), "send"),
)


def files() -> dict[Path, str]:
    """Every file, and what is in it."""
    made = {LAB / "asyncapi.json": asyncapi()}
    for message in MESSAGES:
        schema = {"$schema": DIALECT, "$id": f"urn:{schema_of(message).replace('/', ':')}"} | msgspec.json.schema(
            message
        )
        made[LAB / "schemas" / f"{message.__name__.lower()}.json"] = schema
    return {
        path: json.dumps(flush_left(content), indent=1, ensure_ascii=False) + "\n" for path, content in made.items()
    }


def flush_left(content: Any) -> Any:
    """The same, with text as Python 3.13 keeps docstrings: up to 3.12 they have the indentation of the code."""
    if isinstance(content, dict):
        return {key: flush_left(value) for key, value in content.items()}
    if isinstance(content, list):
        return [flush_left(value) for value in content]
    return inspect.cleandoc(content) if isinstance(content, str) else content


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document."""
    _, schemas = msgspec.json.schema_components(MESSAGES, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tdx-cpuid lab",
            "version": "1",
            "description": "Jobs for hosts with TDX, real or simulated, and what becomes of them. MQTT 5, QoS 1. Every "
            "message has the content type application/json and its schema's name as the user property `schema`. Agents "
            "take a pool's jobs through the shared subscription $share/{pool}/" + topics.jobs("{lab}", "{pool}") + ". "
            "A job's response topic must be a reply topic; correlation data of at most 128 bytes is sent back.",
            "license": {"name": "GPL-2.0-or-later"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.topic.__name__: describe(channel) for channel in CHANNELS},
        "operations": {f"{channel.action}_{channel.topic.__name__}": operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {
                message.__name__: {
                    "name": schema_of(message),
                    "summary": (inspect.getdoc(message) or "").partition("\n")[0],
                    "contentType": "application/json",
                    "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
                }
                for message in MESSAGES
            },
            "schemas": schemas,
        },
    }


def describe(channel: Channel) -> dict[str, Any]:
    """The topic, with the names that it has in it as parameters."""
    names = list(inspect.signature(channel.topic).parameters)
    return {
        "address": channel.topic(*(f"{{{name}}}" for name in names)),
        "description": inspect.getdoc(channel.topic),
        "parameters": {name: {"description": PARAMETERS[name]} for name in names},
        "messages": {one.__name__: {"$ref": f"#/components/messages/{one.__name__}"} for one in channel.messages},
    }


def operation(channel: Channel) -> dict[str, Any]:
    """What an agent does there."""
    name = channel.topic.__name__
    return {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{one.__name__}"} for one in channel.messages],
        "bindings": {"mqtt": {"qos": 1, "retain": channel.retained, "bindingVersion": "0.2.0"}},
    }


def main() -> int:
    """Write the files, or check them."""
    made = files()
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(LAB.parent.parent)} is not what the code says; run scripts/lab-schemas")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
