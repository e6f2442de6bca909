"""The connection to the broker: MQTT 5, acknowledged by hand, and with the broker's word on every message sent.

aiomqtt 2.5 acknowledges a message before its reader has seen it, and takes a refused message for a published one.
Neither will do where a job must be stored before it is acknowledged and a result must not be given up before the
broker has it, so both are done here with the paho client underneath.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import aiomqtt
from aiomqtt import MqttError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from qmp_client.errors import MissingError, TdxCpuidError, UsageError
from qmp_client.lab.address import Address
from qmp_client.lab.fitting import is_compressed
from qmp_client.lab.store import Letter
from qmp_client.lab.wire import Message, encode, schema_of

PATIENCE = 10.0
"""Seconds that the broker has for an answer."""
IN_FLIGHT = 16
"""Messages that the broker may send before one is acknowledged."""


PACKET_TOO_LARGE = 0x95
"""The reason code of MQTT 5 for a message above the broker's limit."""
QUOTA_EXCEEDED = 0x97
T = TypeVar("T")


class NotTaken(MqttError):
    """The broker refuses a message; sending it again on this connection would not help."""


class TooLarge(NotTaken):
    """A message is above what the broker takes; a smaller form of it may do."""


class Unsendable(NotTaken):
    """What can be sent to no broker: MQTT has no such topic, or payload."""


class Connection(aiomqtt.Client):
    """One connection, as a context manager; after it broke, another one is made."""

    def __init__(
        self, to: Address, identifier: str | None = None, session: int = 0, will: tuple[str, Message] | None = None
    ) -> None:
        """``session`` is for how many seconds the broker remembers this identifier; ``will`` what it says for us."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = session
        properties.ReceiveMaximum = IN_FLIGHT
        logger = logging.Logger("mqtt")
        logger.addHandler(_Complaints(self._complain))
        super().__init__(
            to.host,
            to.port,
            username=to.user,
            password=to.password,
            tls_params=to.tls,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=session == 0,
            properties=properties,
            will=_will(*will) if will else None,
            keepalive=20,
            timeout=PATIENCE,
            logger=logger,
            # Messages are small and wait for answers: collecting them into larger packets costs 40 ms each time.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._client.manual_ack_set(True)
        self._understand = self._client._handle_pubackcomp
        self._client._handle_pubackcomp = self._handle_puback  # type: ignore[method-assign,assignment]
        # How it broke is not always of interest to anybody; asyncio would print that nobody asked.
        self._disconnected.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._delivering: dict[int, asyncio.Future[ReasonCode]] = {}
        self._sizes: dict[int, int] = {}
        """Of the messages that are being delivered, by their packet identifiers."""
        self._too_large: set[int] = set()
        """Which of them the broker refused for their size, or hung up for."""
        self.largest = 0
        """Bytes of the largest packet that the broker takes (Maximum Packet Size); 0: it has not said."""

    def _complain(self, said: str) -> None:
        """What ends a connection while it is made is only in paho's log: aiomqtt would wait for an answer."""

        def fail() -> None:
            if not self._connected.done():
                self._connected.set_exception(MqttError(said))

        self._loop.call_soon_threadsafe(fail)

    @property
    def broken(self) -> bool:
        """Whether the connection is gone."""
        return self._disconnected.done()

    async def listen(self, topic: str, qos: int = 1) -> None:
        """Subscribe. Raises NotTaken when the broker does not let us."""
        answers = await self.subscribe(topic, qos)
        for answer in answers:
            if isinstance(answer, ReasonCode) and answer.is_failure:
                raise NotTaken(f"{topic}: {answer}")

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """Let the broker forget a message. Does nothing when the connection is gone: the message comes again."""
        if message.qos:
            self._client.ack(message.mid, message.qos)

    async def deliver(self, letter: Letter) -> ReasonCode:
        """Publish with QoS 1 and wait until the broker has the message; say how it took it.

        Raises NotTaken when the broker refuses it (TooLarge for its size, Unsendable when every broker would),
        MqttError when the connection broke before the broker answered.
        """
        about = _properties(letter)
        size = _size(letter, about)
        if self.largest and size > self.largest:
            raise TooLarge(f"{letter.topic}: {size} bytes, and it takes at most {self.largest}")
        try:
            sent = self._client.publish(letter.topic, letter.payload, 1, letter.retain, about)
        except (ValueError, TypeError) as error:
            raise Unsendable(f"{letter.topic}: {error}") from error
        if sent.rc != 0:
            raise MqttError(f"not connected ({sent.rc})")
        answer = self._delivering[sent.mid] = asyncio.get_running_loop().create_future()
        self._sizes[sent.mid] = size
        self._too_large.discard(sent.mid)
        try:
            await asyncio.wait((answer, self._disconnected), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._delivering[sent.mid], self._sizes[sent.mid]
        if sent.mid in self._too_large:
            raise TooLarge(f"{letter.topic}: {size} bytes")
        if not answer.done():
            raise MqttError("the connection broke" if self._disconnected.done() else "the broker does not answer")
        if answer.result().is_failure:
            raise NotTaken(f"{letter.topic}: {answer.result()}")
        return answer.result()  # type: ignore[no-any-return]

    async def say(self, topic: str, message: Message, *, retain: bool = False, expiry: int = 0) -> ReasonCode:
        """Publish what nobody needs to hear again after an interruption."""
        return await self.deliver(Letter(topic, encode(message), schema_of(type(message)), expiry, retain))

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        """As aiomqtt's; but Python 3.11's ``wait_for`` forgets that it was cancelled when it has just been answered.

        Then whoever was to end goes on, and an agent is deaf to SIGTERM.
        """
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await fut
        except TimeoutError:
            raise MqttError("the broker does not answer") from None

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self.largest = getattr(properties, "MaximumPacketSize", 0)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        if getattr(reason_code, "value", 0) == PACKET_TOO_LARGE and self._sizes:
            self._too_large.add(max(self._sizes, key=self._sizes.__getitem__))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _handle_puback(self, command: Any) -> Any:
        """As paho's, which takes Mosquitto's answer to a message that is too large for a broken connection.

        MQTT 5 has that reason for other packets only (3.4.2.1); it is noted here, and paho is told of another one.
        """
        packet = self._client._in_packet["packet"]
        if len(packet) > 2 and packet[2] == PACKET_TOO_LARGE:
            self._too_large.add(int.from_bytes(packet[:2], "big"))
            packet[2] = QUOTA_EXCEEDED
        return self._understand(command)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """As aiomqtt's, but a socket may be closed again before the event loop comes to it."""

        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def watch() -> None:
            with suppress(OSError, ValueError):
                self._loop.add_writer(sock.fileno(), write)

        self._loop.call_soon_threadsafe(watch)

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        answer = self._delivering.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)


def refused(broker: Address, error: MqttError) -> TdxCpuidError:
    """The error for a broker that cannot be used."""
    if isinstance(error, TooLarge):
        return UsageError(
            f"too large for the broker: {error}",
            hint="its limit decides (mosquitto: max_packet_size, message_size_limit); ask who runs it",
        )
    if isinstance(error, NotTaken):
        return UsageError(f"the broker does not allow it: {error}", hint="its access rules decide; ask who runs it")
    return MissingError(
        f"the broker {broker.host}:{broker.port} cannot be reached: {error}",
        hint="is it running, and are --broker, --ca, --certificate and --password-file right?",
    )


class _Complaints(logging.Handler):
    """Takes errors out of paho's log, instead of having them printed between what a command says."""

    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        self._take(record.getMessage())


def _will(topic: str, message: Message) -> aiomqtt.Will:
    about = _about(PacketTypes.WILLMESSAGE, schema_of(type(message)))
    return aiomqtt.Will(topic, encode(message), 1, retain=True, properties=about)


def _about(packet: int, schema: str) -> Properties:
    """What every message says of itself."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    properties.UserProperty = ("schema", schema)
    return properties


def _properties(letter: Letter) -> Properties:
    properties = _about(PacketTypes.PUBLISH, letter.schema)
    if is_compressed(letter.payload):
        properties.UserProperty = ("encoding", "gzip")
    if letter.expiry:
        properties.MessageExpiryInterval = letter.expiry
    if letter.correlation is not None:
        properties.CorrelationData = letter.correlation
    if letter.response_topic is not None:
        properties.ResponseTopic = letter.response_topic
    return properties


def _size(letter: Letter, about: Properties) -> int:
    """Bytes of the PUBLISH packet (MQTT 5, 3.3): fixed header, topic, packet identifier, properties and payload."""
    rest = 2 + len(letter.topic.encode()) + 2 + len(about.pack()) + len(letter.payload)  # type: ignore[no-untyped-call]
    return 1 + max(1, -(-rest.bit_length() // 7)) + rest


def reply_to(message: aiomqtt.Message) -> tuple[str | None, bytes | None]:
    """The response topic and the correlation data of a message."""
    properties = message.properties
    return getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None)
