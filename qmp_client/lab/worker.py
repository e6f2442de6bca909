"""One job in a process of its own: ``python -m qmp_client.lab.worker`` reads an order and prints an answer.

An agent has threads and an event loop, and QEMU is started by a fork; the limit on memory and whatever goes wrong
concern this process alone.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import msgspec

from plugin.processes.child import die_with_parent
from plugin.tdx_module.guests import find_guest
from qmp_client.boot.model import Booted, BootWish
from qmp_client.boot.td import negotiate_and_boot
from qmp_client.errors import TdxCpuidError
from qmp_client.lab.parts import versions
from qmp_client.lab.wire import Job, Versions
from qmp_client.negotiation.run import negotiate
from qmp_client.negotiation.setup import Setup, start
from qmp_client.negotiation.understand import understand
from qmp_client.qemu.command_line import Machine
from qmp_client.qemu.simulated import simulation
from qmp_client.report.model import Report


class Order(msgspec.Struct):
    """A job, with its names resolved by the agent's configuration."""

    job: Job
    qemu: str
    firmware: str
    options: tuple[str, ...]
    """Further words of QEMU's command line."""
    simulated: bool
    memory_mib: int
    """Address space of this process and of each that it starts."""
    timeout: float
    """Seconds for each step."""
    parent: int
    """The agent's process id: without it, nobody waits for an answer."""
    boot: BootWish | None = None


class Answer(msgspec.Struct):
    """A report, or why there is none, or why the guest is not up."""

    report: Report | None
    versions: Versions | None
    error: str = ""
    boot: Booted | None = None


def main() -> int:
    """Do the one job. SIGINT stops QEMU in order."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    die_with_parent(order.parent)
    size = order.memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_work(order))))
    return 0


async def _work(order: Order) -> Answer:
    job = order.job
    machine = Machine(Path(order.qemu), Path(order.firmware), cpu=job.cpu, smp=str(job.vcpus), machine=job.machine)
    booted = None
    try:
        simulated = simulation(job.module, job.platform) if order.simulated else None
        wish, guest = understand(job.choose, None, None), find_guest(job.guest)
        setup = Setup(machine, simulated, wish, order.timeout, order.options, guest)
        if order.boot:
            report, booted = await negotiate_and_boot(setup, order.boot, in_the_td=not order.simulated)
        else:
            report = await negotiate(start(setup), setup)
    except TdxCpuidError as error:
        return Answer(None, None, "\n".join([error.sentence, *error.quoted]))
    return Answer(report, versions(order.qemu, order.firmware, report), booted.why if booted else "", booted)


if __name__ == "__main__":
    sys.exit(main())
