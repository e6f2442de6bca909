"""A whole negotiation without QEMU: what it would ask for, what KVM and the TDX module make of it, the report.

Every party is the one that the simulation has, but for QEMU, which ``plugin.qemu.request`` models.
"""

from __future__ import annotations

from plugin.cpuid import Cpuid, Leaf
from plugin.kvm.contract import Rejected
from plugin.kvm.device.in_process import init_td, td_cpuid, upstream
from plugin.kvm.device.simulated import SimulatedKvm
from plugin.kvm.dialects.upstream import UpstreamTdx
from plugin.qemu.request import Host, Refused, Unpredictable, build, vcpu
from plugin.qemu.request.words import SERIES
from plugin.tdx_module import TdxHost
from plugin.tdx_module.guests import LINUX, Guest
from qmp_client.entries import Entry, to_entries
from qmp_client.errors import QemuError
from qmp_client.negotiation.outcome import Reading, Subject, decide, report_on
from qmp_client.negotiation.referee import of_simulation
from qmp_client.negotiation.vcpu import Vcpu
from qmp_client.negotiation.wish import Wish
from qmp_client.predict import choices
from qmp_client.predict.errors import error_for
from qmp_client.qemu.command_line import cpu_option, is_named_model
from qmp_client.qmp.wire import ConfigCpuid, RequestedCpuid
from qmp_client.report.model import Report

PREDICTED = "predicted"
SUBLEAVED = frozenset(
    (0x4, 0x7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1B, 0x1D, 0x1E, 0x1F, 0x20, 0x23, 0x24, 0x8000001D)
)
"""Leaves of which QEMU knows that they have sub-leaves, which KVM_TDX_CAPABILITIES does not tell."""
QEMU_ATTRIBUTES = 1 << 28 | 1 << 30 | 1 << 63
"""ATTRIBUTES that QEMU knows how to set: SEPT_VE_DISABLE, PKS, PERFMON."""


def predict(cpu: str, smp: str, wish: Wish, host: TdxHost, guest: Guest = LINUX) -> Report:
    """Predict the report of ``negotiate`` on a simulated upstream KVM, of a q35 machine under QEMU 10.2.

    ``guest`` is who executes CPUID in the TD.
    Raises what ``negotiate`` would raise, and UsageError for what cannot be predicted.
    """
    kvm = SimulatedKvm(host)
    try:
        request = build(cpu_option(cpu), smp, host_of(kvm))
    except (Refused, Unpredictable) as reason:
        raise error_for(reason) from reason
    asked = RequestedCpuid(request.attributes, request.xfam, to_entries(request.cpuid), to_entries(request.dropped))
    tdx = upstream(kvm)
    configurable = _configurable(tdx)
    choice = decide(wish, asked, configurable, named_model=is_named_model(cpu))
    choices.check(choice, configurable, tdx.attributes & QEMU_ATTRIBUTES, tdx.xfam)
    try:
        td = init_td(kvm, choice.attributes, choice.xfam, choice.cpuid)
    except Rejected as refusal:
        raise QemuError(f"KVM would refuse the TD: {refusal.why}") from refusal
    actual = td_cpuid(td)
    try:
        vcpu.check(request, actual)
    except Refused as reason:
        raise error_for(reason) from reason
    config = ConfigCpuid(tdx.attributes & QEMU_ATTRIBUTES, tdx.xfam, _in_order(configurable), tdx.interface)
    told = _in_order(vcpu.told_to_kvm(request, actual))
    report = report_on(
        Subject(PREDICTED, "simulated", cpu, smp, "q35", wish, host, guest),
        Reading(f"{SERIES} ({PREDICTED})", config, choice, [Vcpu(0, asked, actual)], kvm_copy=told),
        of_simulation(host, td.td, td.kvm_filtered),
    )
    report.vcpus = request.vcpus  # a TD has one CPUID: what other vCPUs have differs in dynamic fields only
    return report


def host_of(kvm: SimulatedKvm) -> Host:
    """What QEMU finds on the simulated host."""
    supported: dict[tuple[int, int], object] = {}
    for one in kvm.host.supported.entries:
        supported.setdefault((one.function, one.subleaf), one.registers)
    tdx = upstream(kvm)
    return Host(
        execute=kvm.cpuid,
        supported=supported,  # type: ignore[arg-type]
        guest_states=kvm.host.supported.xcr0,
        configurable={(one.function, one.subleaf): one.registers for one in tdx.configurable},
        attributes=tdx.attributes,
        xfam=tdx.xfam,
        tsc_khz=kvm.host.platform.tsc_khz,
    )


def _configurable(tdx: UpstreamTdx) -> Cpuid:
    """The configurable leaves as x-query-tdx-config-cpuid spells them."""
    return {
        Leaf(one.function, one.subleaf if one.subleaf or one.function in SUBLEAVED else None): one.registers
        for one in tdx.configurable
    }


def _in_order(cpuid: Cpuid) -> list[Entry]:
    """Entries in the order in which QEMU and KVM tell them."""
    return [Entry(leaf.number, *registers, subleaf=leaf.subleaf) for leaf, registers in cpuid.items()]
