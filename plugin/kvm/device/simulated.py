"""A whole simulated KVM: one host platform with one TDX module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from plugin.cpuid.leaf import Registers
from plugin.kvm.contract import NewFile
from plugin.kvm.device.descriptor import Warnings
from plugin.kvm.device.record import TdRecord
from plugin.kvm.device.refusals import Refusals
from plugin.kvm.device.supported_cpuid import SupportedCpuid
from plugin.kvm.device.system import System
from plugin.kvm.device.tdx import TdxCommands, TdxDialect
from plugin.kvm.device.tdx_upstream import UpstreamTdx
from plugin.kvm.device.vm import Vm
from plugin.tdx_module import ModuleVersion, Platform
from plugin.typing import Any


def _to_stderr(message: str) -> None:
    print(f"tdx-cpuid: {message}", file=sys.stderr, flush=True)


class SimulatedKvm:
    """Answers for /dev/kvm on `platform` with TDX `module`, and remembers every TD it built.

    `log` takes a warning, at most one for each request number that is not simulated; the default prints it on stderr.
    `dialect` is how VMMs talk to it about TDs: "upstream" or "proposal". `faults` are specifications as
    `plugin.kvm.device.faults` reads them; UnknownFault is raised for one that it cannot read.
    """

    def __init__(
        self,
        module: ModuleVersion,
        platform: Platform,
        log: Callable[[str], None] | None = None,
        *,
        dialect: str = "upstream",
        faults: Sequence[str] = (),
    ) -> None:
        self.module = module
        self.platform = platform
        self.warnings = Warnings(log or _to_stderr)
        self.supported = SupportedCpuid(platform)
        self.tdx = self._dialect(dialect, faults)
        self.faults = tuple(faults)
        self.refusals = Refusals()
        """The TDX commands that were refused."""
        self.tds: list[TdRecord] = []
        """Every TD that KVM_TDX_INIT_VM made, oldest first."""

    def _dialect(self, name: str, faults: Sequence[str]) -> TdxDialect:
        tdx: type[TdxCommands] = UpstreamTdx
        if name == "proposal":
            from plugin.kvm.device.tdx_proposal import ProposalTdx  # noqa: PLC0415  few need it, and start-up counts

            tdx = ProposalTdx
        commands = tdx(
            self.module,
            self.platform,
            xfam_of_kvm=self.supported.xcr0 | self.supported.xss,
            five_level_ept=self.supported.five_level_ept,
        )
        if not faults:
            return commands
        from plugin.kvm.device.faults import Faults, FaultyTdx  # noqa: PLC0415

        return FaultyTdx(commands, Faults(faults))

    def open(self) -> NewFile:
        """Answer an open of /dev/kvm; every open gets a descriptor of its own."""
        return NewFile(System(self), 0, "kvm")

    def new_vm(self, vm_type: int) -> Vm:
        """Return the device of a new VM."""
        return Vm(self, vm_type)

    def cpuid(self, leaf: int, subleaf: int) -> Registers:
        """Answer the CPUID instruction as the platform's processor does (a `NativeCpuid`)."""
        return self.platform.execute(leaf, subleaf)

    def record(self) -> dict[str, Any]:
        """Return who simulated what, and every TD, as JSON objects."""
        return {
            "module": self.module.name,
            "platform": self.platform.name,
            "interface": self.tdx.interface,
            "faults": list(self.faults),
            "refused": self.refusals.as_json(),
            "tds": [td.as_json() for td in self.tds],
        }
