"""A whole simulated KVM: one host platform with one TDX module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plugin.cpuid.leaf import Registers
from plugin.kvm.contract import NewFile
from plugin.kvm.device.host import KvmHost
from plugin.kvm.device.supported_cpuid import SupportedCpuid
from plugin.kvm.device.system import System
from plugin.kvm.dialects.commands import TdxCommands
from plugin.kvm.dialects.upstream import UpstreamTdx
from plugin.kvm.say import say
from plugin.tdx_module import TdxHost
from plugin.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugin.kvm.dialects.contract import TdxDialect


def _to_stderr(message: str) -> None:
    say(f"tdx-cpuid: {message}")


class SimulatedKvm:
    """Answers for /dev/kvm on a processor on which a TDX module has started, and remembers every TD it built.

    `log` takes a warning, at most one for each request number that is not simulated; the default prints it on stderr.
    `dialect` is how VMMs talk to it about TDs: "upstream" or "proposal". `faults` are specifications as
    `plugin.kvm.dialects.faults` reads them; UnknownFault is raised for one that it cannot read.
    """

    def __init__(
        self,
        tdx_host: TdxHost,
        log: Callable[[str], None] | None = None,
        *,
        dialect: str = "upstream",
        faults: Sequence[str] = (),
    ) -> None:
        self.module = tdx_host.module
        self.faults = tuple(faults)
        supported = SupportedCpuid(tdx_host.platform)
        self.host = KvmHost(tdx_host.platform, supported, self._dialect(dialect, supported), log or _to_stderr)

    def _dialect(self, name: str, supported: SupportedCpuid) -> TdxDialect:
        tdx: type[TdxCommands] = UpstreamTdx
        if name == "proposal":
            from plugin.kvm.dialects.proposal import ProposalTdx  # noqa: PLC0415  few need it, and start-up counts

            tdx = ProposalTdx
        commands = tdx(
            self.module,
            supported.platform,
            xfam_of_kvm=supported.xcr0 | supported.xss,
            five_level_ept=supported.five_level_ept,
        )
        if not self.faults:
            return commands
        from plugin.kvm.dialects.faults import Faults, FaultyTdx  # noqa: PLC0415

        return FaultyTdx(commands, Faults(self.faults))

    def open(self) -> NewFile:
        """Answer an open of /dev/kvm; every open gets a descriptor of its own."""
        return NewFile(System(self.host), 0, "kvm")

    def cpuid(self, leaf: int, subleaf: int) -> Registers:
        """Answer the CPUID instruction as the platform's processor does (a `NativeCpuid`)."""
        return self.host.platform.execute(leaf, subleaf)

    def record(self) -> dict[str, Any]:
        """Return who simulated what, and every TD, as JSON objects."""
        return {
            "module": self.module.name,
            "platform": self.host.platform.name,
            "interface": self.host.tdx.interface,
            "faults": list(self.faults),
            "refused": self.host.refusals.as_json(),
            "tds": [td.as_json() for td in self.host.tds],
            "tds-forgotten": self.host.tds_forgotten,
        }
