"""A QEMU without this project's commands: its own -cpu properties choose, and less can be seen.

What was asked for and what the TD has come from three places: QOM's feature words of vCPU 0, QEMU's warnings, and the
simulated KVM's record. On hardware there is no record, and only bits that QEMU has feature words for are seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from plugin.cpuid import ZERO, Cpuid, Leaf, Registers, spelled_like
from plugin.kvm.device.in_process import upstream
from plugin.kvm.device.simulated import SimulatedKvm
from plugin.kvm.dialects.td import read_cpuid
from plugin.kvm.policy import is_paravirtual
from plugin.tdx_module import TdParams, TdxHost, init_td
from qmp_client.entries import to_cpuid, to_entries
from qmp_client.errors import UsageError
from qmp_client.negotiation.choose import Choice
from qmp_client.negotiation.outcome import Reading
from qmp_client.negotiation.vcpu import Vcpu
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.record import Record
from qmp_client.qmp.session import Session
from qmp_client.qmp.wire import ConfigCpuid, FeatureWord, RequestedCpuid

WARNING = re.compile(
    r"warning: (?P<what>TDX forcibly sets the feature|TDX doesn't support requested feature): "
    r"CPUID\[eax=(?P<leaf>[0-9A-F]+)h(?:,ecx=(?P<subleaf>[0-9A-F]+)h)?\]\.(?P<register>E[A-D]X)\S* \[bit (?P<bit>\d+)\]"
)
"""QEMU's warnings about a TD's features (tdx_check_features, target/i386/kvm/tdx.c), one for each bit."""

NOT_WITHOUT_PATCHES = "a stock QEMU cannot be told what to choose: {} needs the commands of plugin/qemu"
CAVEATS = (
    "a stock QEMU: what -cpu asked for is put together from QOM's feature words of vCPU 0, QEMU's warnings and KVM's"
    " record; other vCPUs are taken to be like it",
)
ON_HARDWARE = (
    "a stock QEMU on hardware: only bits with a QEMU feature word are seen; family, model, caches, widths, topology and"
    " leaves that QEMU has no name for are not",
    "what could be configured and what KVM_TDX_INIT_VM was given cannot be seen",
)
UNCHECKED = "QEMU printed no TDX warnings; with -cpu ...,check=off it says nothing of bits that were forced"


class Seen(NamedTuple):
    """What the monitor showed."""

    qemu_version: str
    vcpus: int
    has: Cpuid
    """Feature bits of vCPU 0, as QEMU has them after it read the TD's."""
    filtered: Cpuid
    """Feature bits that were asked for and taken away, by QEMU or by TDX."""

    def reading(self, complaints: Iterable[str], record: Record | None, host: TdxHost | None) -> Reading:
        """All that can be said of the TD, with QEMU's standard error and the simulation's record. Pure."""
        known = put_together(self, warnings(complaints), record, host)
        vcpus = [Vcpu(index, known.requested, known.actual) for index in range(self.vcpus)]
        return Reading(self.qemu_version, known.config, known.choice, vcpus, known.caveats)


class Warned(NamedTuple):
    """What QEMU's warnings told of TDX's part in it."""

    forced_on: Cpuid
    unsupported: Cpuid


class Known(NamedTuple):
    """What can be reported."""

    config: ConfigCpuid
    choice: Choice
    requested: RequestedCpuid
    actual: dict[Leaf, Registers]
    caveats: tuple[str, ...]


async def observe(session: Session, wish: Wish) -> Seen:
    """Leave preconfig and look at vCPU 0. Raises UsageError for a wish that only a patched QEMU can fulfil."""
    for asked, option in (
        (wish.policy != "model", f"--choose {wish.source}"),
        (wish.attributes is not None, "--attributes"),
        (wish.xfam is not None, "--xfam"),
    ):
        if asked:
            raise UsageError(
                NOT_WITHOUT_PATCHES.format(option),
                hint="name features in --cpu (host,-avx512f), or build a patched QEMU with scripts/build-qemu",
            )
    await session.execute("x-exit-preconfig")
    vcpus = len(await session.cpu_indexes())
    has, filtered = [_words(await session.feature_words(name)) for name in ("feature-words", "filtered-features")]
    return Seen(session.qemu_version, vcpus, has, filtered)


def warnings(complaints: Iterable[str]) -> Warned:
    """Read QEMU's warnings about the TD's features. Pure."""
    found: dict[str, dict[Leaf, Registers]] = {"forced": {}, "not": {}}
    for line in complaints:
        if match := WARNING.search(line):
            subleaf = match["subleaf"]
            leaf = Leaf(int(match["leaf"], 16), int(subleaf, 16) if subleaf else None)
            kind = found["forced" if "forcibly" in match["what"] else "not"]
            _set(kind, leaf, match["register"], 1 << int(match["bit"]))
    return Warned(found["forced"], found["not"])


def put_together(seen: Seen, warned: Warned, record: Record | None, host: TdxHost | None) -> Known:
    """Work out request, choice and result from all that was seen; ``host`` is what was simulated. Pure."""
    dropped = _less(seen.filtered, warned.unsupported)
    silent = () if warned.forced_on or warned.unsupported else (UNCHECKED,)
    if record is None or not record.tds or host is None:
        asked = _less(_merged(seen.has, seen.filtered), warned.forced_on)
        requested = RequestedCpuid(0, 0, to_entries(_less(asked, dropped)), to_entries(dropped))
        return Known(ConfigCpuid(0, 0, []), Choice(0, 0, {}), requested, dict(seen.has), ON_HARDWARE + silent)
    td = record.tds[-1]
    kvm = upstream(SimulatedKvm(host))
    table = host.module.configurable
    offered = spelled_like({Leaf(e.function, e.subleaf): e.registers for e in kvm.configurable}, table)
    tables = init_td(host.module, host.platform, TdParams(td.attributes, td.xfam, to_cpuid(td.cpuid_config)))
    actual = {entry.leaf: entry.registers for entry in read_cpuid(tables, td.gpaw)}
    chosen = spelled_like(to_cpuid(td.requested.cpuid), table)
    # Paravirtual leaves are no part of what -cpu asks of the processor.
    told = spelled_like(
        {leaf: value for leaf, value in to_cpuid(td.kvm_copy).items() if not is_paravirtual(leaf)}, actual
    )
    taken = spelled_like(warned.unsupported, actual)
    built = _merged(_less(told, spelled_like(warned.forced_on, actual)), taken)
    requested = RequestedCpuid(
        td.requested.attributes, td.requested.xfam, to_entries(built), to_entries(spelled_like(dropped, actual))
    )
    return Known(
        ConfigCpuid(kvm.attributes, kvm.xfam, to_entries(offered)),
        Choice(td.requested.attributes, td.requested.xfam, dict(chosen)),
        requested,
        actual,
        CAVEATS + silent,
    )


def _words(words: Iterable[FeatureWord]) -> dict[Leaf, Registers]:
    found: dict[Leaf, Registers] = {}
    for word in words:
        _set(found, Leaf(word.cpuid_input_eax, word.cpuid_input_ecx), word.cpuid_register, word.features)
    return found


def _set(cpuid: dict[Leaf, Registers], leaf: Leaf, register: str, bits: int) -> None:
    cpuid[leaf] = cpuid.get(leaf, ZERO) | ZERO.with_(register.lower(), bits)  # type: ignore[arg-type]


def _merged(one: Cpuid, other: Cpuid) -> dict[Leaf, Registers]:
    return {leaf: one.get(leaf, ZERO) | other.get(leaf, ZERO) for leaf in one.keys() | other.keys()}


def _less(cpuid: Cpuid, bits: Cpuid) -> dict[Leaf, Registers]:
    return {leaf: registers.without(bits.get(leaf, ZERO)) for leaf, registers in cpuid.items()}
