"""The three calls with one QEMU, in the only order in which they make sense.

    HELD --feed--> CONFIGURED --leave_preconfig--> RUNNING --read_back--> READ_BACK

HELD: ``-preconfig``, no vCPU yet; KVM has said what may be configured. CONFIGURED: the choice lies ready.
RUNNING: KVM_TDX_INIT_VM has been called with it, and the vCPUs exist. READ_BACK: every vCPU's CPUID is known.
"""

from __future__ import annotations

from enum import StrEnum

from qmp_client.entries import to_cpuid, to_entries
from qmp_client.errors import TdxCpuidError
from qmp_client.negotiation.choose import Choice
from qmp_client.negotiation.vcpu import Vcpu
from qmp_client.qmp.session import Session
from qmp_client.qmp.wire import ConfigCpuid, RequestedCpuid


class Stage(StrEnum):
    """How far a negotiation has come."""

    HELD = "held"
    CONFIGURED = "configured"
    RUNNING = "running"
    READ_BACK = "read back"


class WrongOrder(TdxCpuidError):
    """A step was taken before the one it needs, which is a mistake of the program that drives the conversation."""


class Conversation:
    """Drives one held QEMU through the negotiation."""

    def __init__(self, session: Session, stage: Stage = Stage.HELD) -> None:
        self._session = session
        self.stage = stage

    async def config(self) -> ConfigCpuid:
        """Call 1: what may be configured. Possible at every stage."""
        return await self._session.config()

    async def requested(self) -> RequestedCpuid:
        """What ``-cpu`` is going to build for vCPU 0. Raises WrongOrder once the vCPUs exist."""
        self._require(Stage.HELD, Stage.CONFIGURED)
        return await self._session.requested()

    async def feed(self, choice: Choice) -> None:
        """Call 2: lay the choice ready. Raises CommandRefused, naming the bit, when KVM does not let it be set."""
        self._require(Stage.HELD, Stage.CONFIGURED)
        await self._session.choose(to_entries(choice.cpuid), choice.attributes, choice.xfam)
        self.stage = Stage.CONFIGURED

    async def leave_preconfig(self) -> None:
        """Let QEMU create the TD and its vCPUs. It ends the process when KVM refuses: SessionLost."""
        self._require(Stage.CONFIGURED)
        await self._session.execute("x-exit-preconfig")
        self.stage = Stage.RUNNING

    async def read_back(self) -> list[Vcpu]:
        """Call 3, for every vCPU: what it was meant to have, and what it has."""
        self._require(Stage.RUNNING, Stage.READ_BACK)
        vcpus = []
        for index in await self._session.cpu_indexes():
            requested = await self._session.requested(index)
            actual = await self._session.actual(index)
            vcpus.append(Vcpu(index, requested, to_cpuid(actual.cpuid)))
        self.stage = Stage.READ_BACK
        return vcpus

    def _require(self, *stages: Stage) -> None:
        if self.stage not in stages:
            raise WrongOrder(f"the negotiation is {self.stage}; this step needs it to be {' or '.join(stages)}")
