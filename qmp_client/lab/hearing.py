"""Listening to a lab: what is retained first, then what happens. Whatever is no message of ours is passed over."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from functools import reduce
from operator import or_
from typing import Any, NamedTuple, cast

import msgspec
from aiomqtt import MqttError

from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.broker import Connection, NotTaken, refused
from qmp_client.lab.printable import cleaned
from qmp_client.lab.wire import MESSAGES, RESULT_LIMIT, Delivered, Message

AGAIN = 2.0
"""Seconds between two attempts to reach a broker that is gone."""
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


async def hear_a_lab(
    broker: Address, lab: str, tell: Callable[[str], None], *, once: bool
) -> AsyncIterator[Heard | None]:
    """All that is said in a lab; None when what was retained has been said, and after each outage again.

    ``tell`` is given sentences for the user. Raises MissingError when the broker cannot be reached at first, or at all
    with ``once``, UsageError when it does not let us.
    """
    every = topics.EVERY
    filters = [of(lab, every) for of in (topics.status, topics.capabilities, topics.rejected, topics.progress)]
    reached = False
    while True:
        try:
            async with Connection(broker) as connection:
                async for heard in hear(connection, lab, *filters, topics.drift(lab)):
                    reached = True
                    yield heard
        except MqttError as error:
            if not reached or once or isinstance(error, NotTaken):
                raise refused(broker, error) from error
            tell(f"the broker is gone ({error}); trying again")
            await asyncio.sleep(AGAIN)
