"""What all devices of one simulated KVM share: the machine, how TDs are talked about, and what was seen of it all."""

from __future__ import annotations

import errno
from collections.abc import Callable

from plugin.kvm.contract import Rejected, Reply, SharedPages, Wait, then
from plugin.kvm.dialects.commands import Unknown
from plugin.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugin.kvm.contract import Execution
    from plugin.kvm.device.supported_cpuid import SupportedCpuid
    from plugin.kvm.dialects.contract import TdxDialect
    from plugin.kvm.dialects.td import TdRecord
    from plugin.tdx_module import Platform

_KEPT = 16
KEPT_TDS = 64
KEPT_WARNINGS = 64


class Refusal:
    """One sentence, and how often it was said in a row."""

    __slots__ = ("errno", "overcome", "times", "why")

    def __init__(self, rejected: Rejected) -> None:
        self.errno = rejected.errno
        self.why = rejected.why
        self.times = 1
        self.overcome = False
        """Whether a later TDX command succeeded, so that the VMM went on."""


class Refusals:
    """The TDX commands that KVM refused last, oldest first: a VMM shows its user an errno and no more.

    Nothing is noted before the caller has the answer.
    """

    __slots__ = ("_list",)

    def __init__(self) -> None:
        self._list: list[Refusal] = []

    def refused(self, rejected: Rejected) -> Rejected:
        """Return the exception, which its commit notes from now on. An unknown command is no refusal."""
        return rejected if isinstance(rejected, Unknown) else rejected.then(lambda: self._add(rejected))

    def granted(self, reply: Reply) -> Reply:
        """Return the reply to a TDX command; once it is committed, what was refused before is overcome."""
        return reply._replace(commit=then(reply.commit, self._went_on))

    def _add(self, rejected: Rejected) -> None:
        """Note one; the same as the last one only counts."""
        last = self._list[-1] if self._list else None
        if last is not None and (last.errno, last.why, last.overcome) == (rejected.errno, rejected.why, False):
            last.times += 1
            return
        self._list = [*self._list[1 - _KEPT :], Refusal(rejected)]

    def _went_on(self) -> None:
        for refusal in reversed(self._list):
            if refusal.overcome:
                break
            refusal.overcome = True

    def as_json(self) -> list[dict[str, Any]]:
        """Return them as JSON objects."""
        return [
            {
                "errno": errno.errorcode.get(refusal.errno, str(refusal.errno)),
                "why": refusal.why,
                "times": refusal.times,
                "overcome": refusal.overcome,
            }
            for refusal in self._list
        ]


class Warnings:
    """Says once for each request number that it is not simulated."""

    __slots__ = ("_log", "_seen")

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._seen: set[int] = set()

    def unknown(self, kind: str, request: int) -> Rejected:
        """Return the ENOTTY for a request that has no row for this kind of descriptor; the first one's commit warns."""
        why = f"ioctl {request:#010x} is not simulated on a {kind} descriptor; the caller gets ENOTTY"
        known = request in self._seen or len(self._seen) >= KEPT_WARNINGS
        return Rejected(errno.ENOTTY, why, None if known else lambda: self._warn(request, why))

    def _warn(self, request: int, why: str) -> None:
        self._seen.add(request)
        more = "; of further requests nothing is said" if len(self._seen) == KEPT_WARNINGS else ""
        self._log(why + more)


class Idle:
    """An `Execution` without a processor: no guest code runs, so KVM_RUN waits for a signal."""

    def run(self, pages: SharedPages) -> Wait:
        """Wait."""
        return Wait()


class KvmHost:
    """One machine with KVM: made by `SimulatedKvm`, handed down to every device."""

    __slots__ = ("platform", "refusals", "supported", "tds", "tds_forgotten", "tdx", "warnings")

    def __init__(
        self, platform: Platform, supported: SupportedCpuid, tdx: TdxDialect, warn: Callable[[str], None]
    ) -> None:
        self.platform = platform
        self.supported = supported
        self.tdx = tdx
        """How VMMs talk to it about TDs."""
        self.warnings = Warnings(warn)
        self.refusals = Refusals()
        """The TDX commands that were refused."""
        self.tds: list[TdRecord] = []
        """The last TDs that KVM_TDX_INIT_VM made, oldest first: a command may make thousands, of 70 kB each."""
        self.tds_forgotten = 0

    def note(self, td: TdRecord) -> None:
        """Remember a TD for the record; the oldest is forgotten when there are many."""
        if len(self.tds) == KEPT_TDS:
            del self.tds[0]
            self.tds_forgotten += 1
        self.tds.append(td)

    def new_execution(self) -> Execution:
        """Return what runs the guest code of a new vCPU: nothing does yet."""
        return Idle()
