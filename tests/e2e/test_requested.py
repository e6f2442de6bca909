"""What QEMU asks for and drops, before KVM and the module have their say: the computed against a real QEMU's.

These command lines are odd on purpose: each lets a table of QEMU's be seen that a sensible one hides.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from plugin.kvm.device.simulated import SimulatedKvm
from plugin.qemu.request import build
from plugin.qemu.request.words import load_features
from plugin.tdx_module import load_host
from qmp_client.entries import to_cpuid
from qmp_client.negotiation.conversation import Conversation
from qmp_client.predict.predict import host_of
from qmp_client.qemu.command_line import Machine, arguments, cpu_option
from qmp_client.qemu.process import watching
from qmp_client.qemu.spawn import Simulation, spawn
from qmp_client.qmp.session import connect
from qmp_client.qmp.wire import RequestedCpuid
from tests.e2e.release import only_with_the_written_down
from tests.waiting import PATIENCE

MODULE, PLATFORM = "1.5.05", "granite-rapids"
EVERY = sorted(load_features().features)
NEEDED = ("intel-pt", "svm", "lm", "lkgs", "sgx", "avx10", "avx10-128", "avx10-256", "xsave")


def option(model: str, sign: str, *without: str) -> str:
    return ",".join([model, *(sign + name for name in EVERY), *(f"-{name}" for name in without)])


ODD = [
    option("host", "+"),
    option("host,migratable=off", "+"),
    option("pentium3", "+"),
    *(option("host", "+", name) for name in NEEDED),
    *(option("GraniteRapids-v2,avx10-512", "+", name) for name in NEEDED),
    "pentium3,+lm,+wbnoinvd",
    "pentium3,+lm,+invtsc",
    "pentium3,+lm,+npt,+svm",
    "pentium3,+lm,+no-nested-data-bp",
    "pentium3,+fsgsbase",
    "pentium3,+mcdt-no",
    "pentium3,+avx10",
    "base,+lm,+xsave,+mpx,+avx,+pku",
    "GraniteRapids-v2,-avx10-128",
    "GraniteRapids-v2,-avx10",
    "EPYC-Turin,+svm",
    "EPYC-Turin",  # its svm features go without a word: KVM's default takes svm away
    "pentium3,+msr-imm",
    "pentium3,+avx-ne-convert",
    "pentium3,+lm,-invtsc",
    "pentium3,-invtsc,+abm",
]


@pytest.fixture(autouse=True)
def _of_that_release(qemu: Path) -> None:
    only_with_the_written_down(qemu)


async def requested(qemu: Path, firmware: Path, cpu: str) -> RequestedCpuid:
    machine = Machine(qemu, firmware, cpu)
    child = spawn(lambda monitor: arguments(machine, monitor), Simulation(load_host(MODULE, PLATFORM)))
    async with watching(child), connect(child.monitor, PATIENCE) as session:
        return await Conversation(session).requested()


@pytest.mark.parametrize("cpu", ODD, ids=lambda cpu: cpu if len(cpu) < 80 else f"{cpu[:20]}..{cpu[-20:]}")
def test_what_is_computed_is_what_qemu_asks_for(qemu: Path, firmware: Path, cpu: str) -> None:
    real = asyncio.run(requested(qemu, firmware, cpu))
    host = load_host(MODULE, PLATFORM)
    ours = build(cpu_option(cpu), "1", host_of(SimulatedKvm(host)))
    assert ours.cpuid == to_cpuid(real.cpuid)
    assert ours.dropped == to_cpuid(real.dropped)
    assert (ours.attributes, ours.xfam) == (real.attributes, real.xfam)
