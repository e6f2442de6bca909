"""Picking the judge: the module's tables when a simulation ran them, evidence alone on hardware."""

from __future__ import annotations

from typing import NamedTuple

from plugin.cpuid import Cpuid
from plugin.tdx_module import Td, TdParams, TdxHost, init_td, load_module, published_names
from qmp_client.entries import to_cpuid
from qmp_client.qemu.record import Record
from qmp_client.reconcile.cause import EvidenceJudge, Judge, ModuleJudge
from qmp_client.reconcile.view import Tables


class Referee(NamedTuple):
    """A judge, and what a reader should know about it."""

    judge: Judge
    notes: tuple[str, ...] = ()
    tables: Tables | None = None
    """The module that ran, and the TD's native values; None where they are not known."""


def referee(record: Record | None, host: TdxHost | None) -> Referee:
    """The judge for the TD of a simulation's record; on hardware (no host), for one of which no tables are known.

    The tables are asked anew for what KVM_TDX_INIT_VM was given, so a TD that is not as they say is noticed.
    """
    if record is None or not record.tds or host is None:
        return Referee(
            EvidenceJudge(load_module(published_names()[-1])),
            ("no module tables for this host: causes and classes are inferred from what was offered and read",),
        )
    td = record.tds[-1]
    params = TdParams(td.attributes, td.xfam, to_cpuid(td.cpuid_config))
    tables = init_td(host.module, host.platform, params)
    return of_simulation(host, tables, to_cpuid(td.kvm_filtered))


def of_simulation(host: TdxHost, td: Td, kvm_filtered: Cpuid) -> Referee:
    """The judge for a TD that this host's module made."""
    return Referee(knowing(host, td, kvm_filtered), tuple(host.assumptions()), Tables(host.module, td.native))


def knowing(host: TdxHost, td: Td, kvm_filtered: Cpuid) -> ModuleJudge:
    """The judge for a TD of this host, by its module's tables and those of the versions after it."""
    names = published_names()
    newer = names[names.index(host.module.name) + 1 :] if host.module.name in names else ()
    return ModuleJudge(host.module, td, kvm_filtered, tuple(map(load_module, newer)))
