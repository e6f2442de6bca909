"""A guest on a simulated host: in plain emulation (TCG), because a simulated TD runs no code."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client.boot.devices import channels, words
from qmp_client.boot.model import Booted, BootWish
from qmp_client.boot.run import boot
from qmp_client.qemu.command_line import Machine, frame, is_named_model
from qmp_client.qemu.ending import explain
from qmp_client.qemu.process import watching
from qmp_client.qemu.spawn import spawn
from qmp_client.qmp.session import CommandRefused, SessionLost, connect

CODE_MIB = 64
"""For translated code; QEMU's default is 1 GiB of address space, which counts against a job's limit."""
END = 5.0
"""Seconds for QEMU to be gone when it has been told to quit."""


async def emulate(machine: Machine, wish: BootWish, options: Sequence[str], timeout: float) -> Booted:
    """Boot the machine's guest without TDX. Every QMP step has ``timeout`` seconds.

    Raises QemuError or UsageError when QEMU does not start the guest.
    """
    with channels() as ends:
        child = spawn(
            lambda monitor: [*arguments(machine, monitor), *words(wish, ends.inherited), *options],
            None,
            ends.inherited,
        )
        ends.handed_over()
        async with watching(child) as process:
            try:
                async with connect(child.monitor, timeout) as session:
                    booted = await boot(session, ends, wish, "emulated")
            except (SessionLost, CommandRefused) as error:
                await process.ended(END if isinstance(error, SessionLost) else 0)
                raise explain(error, process.ending, process.complaints(), machine) from error
            await process.ended(END)
    return booted


def arguments(machine: Machine, monitor_fd: int) -> list[str]:
    """QEMU's command line: the TD's machine, but with TCG in KVM's place."""
    return [
        *frame(machine, monitor_fd),
        *("-accel", f"tcg,tb-size={CODE_MIB}"),
        *("-machine", machine.machine),
        *("-cpu", emulated_model(machine.cpu)),
    ]


def emulated_model(cpu: str) -> str:
    """``-cpu`` with a model that TCG has: there is no host's processor to pass on."""
    _, comma, features = cpu.partition(",")
    return cpu if is_named_model(cpu) else f"max{comma}{features}"
