"""Listening to a lab: what is retained first, then what happens. Whatever is no message of ours is passed over."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec
from aiomqtt import MqttError

from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.broker import Connection, NotTaken, refused
from qmp_client.lab.fitting import expanded, is_compressed
from qmp_client.lab.printable import cleaned
from qmp_client.lab.wire import RESULT_LIMIT, Delivered, Message, decode

AGAIN = 2.0
"""Seconds between two attempts to reach a broker that is gone."""


class Heard(NamedTuple):
    """A message, and where it was published."""

    topic: str
    message: Message


def read(payload: bytes) -> Message | None:
    """The message with printable texts, or None for what is too large or none of ours.

    Anybody may write to a broker without rules.
    """
    whole = expanded(payload, RESULT_LIMIT) if is_compressed(payload) else payload
    if whole is None or len(whole) > RESULT_LIMIT:
        return None
    try:
        return cleaned(decode(whole), whole)
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
