"""Listening to a lab: what is retained first, then what happens. Whatever is no message of ours is passed over."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from functools import reduce
from operator import or_
from typing import Any, NamedTuple, cast

import msgspec

from qmp_client.lab import topics
from qmp_client.lab.broker import Connection
from qmp_client.lab.printable import cleaned
from qmp_client.lab.wire import MESSAGES, RESULT_LIMIT, Delivered, Message

_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(cast("Any", reduce(or_, MESSAGES)))


class Heard(NamedTuple):
    """A message, and where it was published."""

    topic: str
    message: Message


def read(payload: bytes) -> Message | None:
    """The message with printable texts, or None for what is too large or none of ours.

    Anybody may write to a broker without rules.
    """
    if len(payload) > RESULT_LIMIT:
        return None
    try:
        return cleaned(_DECODER.decode(payload), payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


async def hear(connection: Connection, lab: str, *filters: str) -> AsyncIterator[Heard | None]:
    """Subscribe, and yield what is said; None once, when everything that the broker had kept has been yielded.

    Raises MqttError when the connection breaks.
    """
    own = topics.reply(lab, f"hear-{secrets.token_hex(8)}")
    for topic in (own, *filters):
        await connection.listen(topic)
    await connection.say(own, Delivered(through=0, probe=own))  # comes back after what is retained
    async for message in connection.messages:
        said = read(message.payload)
        topic = message.topic.value
        connection.acknowledge(message)
        if topic == own:
            yield None
        elif said is not None:
            yield Heard(topic, said)
