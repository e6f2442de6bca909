"""One QMP conversation: connect, check what this QEMU can do, ask, say goodbye.

A thin layer over ``qemu.qmp``: every call has a deadline and a step name, and every way in which the other side can
fail becomes one sentence that names the step.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from qmp_client.entries import Entry
from qmp_client.errors import MissingError, QemuError
from qmp_client.qmp.wire import (
    CommandInfo,
    ConfigCpuid,
    CpuFast,
    CpuInQom,
    FeatureWord,
    RequestedCpuid,
    Shutdown,
    VcpuCpuid,
    Version,
)

T = TypeVar("T")

NEEDED = frozenset(
    {
        "x-query-tdx-config-cpuid",
        "x-query-tdx-requested-cpuid",
        "x-query-tdx-vcpu-cpuid",
        "x-tdx-set-cpuid-choices",
    }
)


class CommandRefused(QemuError):
    """QEMU answered a command with an error; ``str()`` is QEMU's own sentence behind the command's name."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"QEMU refused {command}: {said}")
        self.said = said


class SessionLost(QemuError):
    """The conversation broke: QEMU died, hung up, or sent what is not QMP."""


class QuietClient(QMPClient):
    """A client without the library's log of messages, which makes indented JSON of each even where nobody reads it."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class Session:
    """A QMP session in which every command has ``timeout`` seconds to be answered."""

    def __init__(self, client: QMPClient, qemu_version: str, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self.qemu_version = qemu_version
        """From QEMU's greeting, such as ``10.2.2 (Debian 1:10.2.2+ds-1)``."""

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run one command.

        Raises CommandRefused when QEMU answers with an error, SessionLost when it does not answer in time or at all.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise CommandRefused(command, str(error)) from error
        except TimeoutError as error:
            raise SessionLost(
                f"QEMU did not answer {command} within {self._timeout:g} s",
                hint="--timeout SECONDS allows more, for large memory on real hardware",
            ) from error
        except (ExecInterruptedError, QMPError, EOFError, OSError, ValueError) as error:
            raise SessionLost(f"QMP broke during {command}: {_root(error)}") from error

    async def _ask(self, command: str, answer: type[T], arguments: Mapping[str, object] | None = None) -> T:
        return _read(f"{command} answered", await self.execute(command, arguments), answer, patched=command in NEEDED)

    async def until_shutdown(self) -> str:
        """Wait until the guest has ended; return why in QEMU's word (``ShutdownCause``), such as ``guest-shutdown``.

        Empty when QEMU ended without a word.
        """
        gone = asyncio.create_task(self._hung_up())
        try:
            while True:
                event = asyncio.create_task(self._client.events.get())
                await asyncio.wait({event, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    event.cancel()
                    return ""
                if event.result()["event"] == "SHUTDOWN":
                    return _read("the event SHUTDOWN came", event.result().get("data", {}), Shutdown).reason
        finally:
            gone.cancel()

    async def _hung_up(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def is_patched(self) -> bool:
        """Whether this QEMU has the project's commands."""
        commands = await self._ask("query-commands", list[CommandInfo])
        return not NEEDED - {one.name for one in commands}

    async def feature_words(self, word: str) -> list[FeatureWord]:
        """A property of vCPU 0 that holds feature words: ``feature-words`` or ``filtered-features``."""
        cpus = await self._ask("query-cpus-fast", list[CpuInQom])
        path = next((cpu.qom_path for cpu in cpus if cpu.cpu_index == 0), "")
        return await self._ask("qom-get", list[FeatureWord], {"path": path, "property": word})

    async def require_patches(self) -> None:
        """Check that this QEMU has the project's commands; MissingError says how to get one that does."""
        if not await self.is_patched():
            raise MissingError(
                f"this QEMU ({self.qemu_version}) is a stock one: it lacks the commands of plugin/qemu",
                hint="scripts/build-qemu builds a patched one; scripts/build-qemu --source DIR patches your own tree",
            )

    async def config(self) -> ConfigCpuid:
        """Call 1, KVM_TDX_GET_CONFIG_CPUID: what may be configured."""
        return await self._ask("x-query-tdx-config-cpuid", ConfigCpuid)

    async def requested(self, cpu_index: int | None = None) -> RequestedCpuid:
        """What ``-cpu`` built for one vCPU; in preconfig (None), what it is going to build."""
        return await self._ask(
            "x-query-tdx-requested-cpuid",
            RequestedCpuid,
            None if cpu_index is None else {"cpu-index": cpu_index},
        )

    async def choose(self, cpuid: list[Entry], attributes: int, xfam: int) -> None:
        """Call 2: exactly this goes to KVM_TDX_INIT_VM once preconfig is left."""
        arguments = {"cpuid": msgspec.to_builtins(cpuid), "attributes": attributes, "xfam": xfam}
        await self.execute("x-tdx-set-cpuid-choices", arguments)

    async def actual(self, cpu_index: int) -> VcpuCpuid:
        """Call 3, KVM_TDX_INIT_VCPU_CPUID: every leaf that this vCPU has, asked for or not."""
        return await self._ask("x-query-tdx-vcpu-cpuid", VcpuCpuid, {"cpu-index": cpu_index})

    async def cpu_indexes(self) -> list[int]:
        """The indexes of the vCPUs that exist."""
        cpus = await self._ask("query-cpus-fast", list[CpuFast])
        return sorted(cpu.cpu_index for cpu in cpus)


def _read(what: str, said: object, kind: type[T], *, patched: bool = False) -> T:
    """What QEMU said, as the type that it has to be; ``patched``: it comes from the project's own commands.

    Raises QemuError that names the field.
    """
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise QemuError(
            f"{what} in a form this version does not know: {error}",
            hint="the QEMU was patched with another version of plugin/qemu: run scripts/build-qemu again"
            if patched
            else "",
        ) from error


def _root(error: BaseException) -> str:
    """The innermost reason, without the layers of protocol errors around it."""
    while isinstance(error, ConnectError) or (error.__cause__ is not None and isinstance(error, QMPError)):
        inner = error.exc if isinstance(error, ConnectError) else error.__cause__
        if inner is None:
            break
        error = inner
    if isinstance(error, EOFError):
        return "the other end closed it"
    return getattr(error, "strerror", None) or f"{error}" or type(error).__name__


@asynccontextmanager
async def connect(address: socket.socket | str, timeout: float) -> AsyncIterator[Session]:
    """Open a session on a connected socket or on the path of a QMP socket, and close it at the end.

    Raises SessionLost when nobody speaks QMP there within ``timeout`` seconds.
    """
    client = QuietClient("tdx-cpuid")
    where = f"the QMP socket {address}" if isinstance(address, str) else "QEMU's monitor"
    try:
        async with asyncio.timeout(timeout):
            await client.connect(address)
    except TimeoutError as error:
        raise SessionLost(
            f"{where} is open, but no QMP greeting came within {timeout:g} s",
            hint="QEMU serves one client at a time: is another program connected to it?"
            if isinstance(address, str)
            else "",
        ) from error
    except (ConnectError, QMPError, OSError, ValueError) as error:
        raise SessionLost(f"{where} cannot be used: {_root(error)}") from error
    try:
        greeting = client.greeting
        version = _read("QEMU's greeting came", greeting.QMP.version, Version) if greeting else "unknown"
        yield Session(client, str(version), timeout)
    finally:
        await _close(client)


async def _close(client: QMPClient) -> None:
    """Hang up without caring how: whatever went wrong before has been or is being reported."""
    try:
        async with asyncio.timeout(2):
            await client.disconnect()
    except (QMPError, EOFError, OSError, ValueError, TimeoutError):
        return
