"""From a conversation to verdicts: each TD's request, choice and CPUID, as KVM heard and told them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from plugin.cpuid import ZERO, Cpuid, spelled_like
from plugin.kvm.policy import UNSUPPORTED_CPUID, for_module
from plugin.tdx_module import SeamcallError, Td, TdParams, TdxHost, init_td
from plugin.tdx_module.guests import LINUX, Guest
from qmp_client.reconcile.cause import Evidence, EvidenceJudge, Judge, ModuleJudge
from qmp_client.reconcile.reconcile import count, differing, reconcile
from qmp_client.reconcile.verdict import Line
from qmp_client.reconcile.view import Tables, View
from qmp_client.replay.read import Talk, chosen, cpuid

TDX_VM = 5
READS = ("KVM_TDX_GET_CPUID", "KVM_TDX_INIT_VCPU_CPUID")
OFFERS = ("KVM_TDX_CAPABILITIES", "KVM_TDX_GET_CONFIG_CPUID")


class Story(msgspec.Struct, rename="kebab"):
    """What became of one TD."""

    vm: str
    vcpus: int
    attributes: int
    xfam: int
    finalised: bool
    summary: dict[str, int]
    lines: list[Line]
    notes: list[str]


class NoTd(msgspec.Struct):
    """A TD that KVM_TDX_INIT_VM never made."""

    vm: str
    why: str


def stories(talk: Talk, host: TdxHost | None, guest: Guest = LINUX) -> list[Story | NoTd]:
    """Tell of every TD of the conversation, as a guest sees it.

    ``host`` has the tables that explain it, None if they are not known: then the guest is taken to see what a TD holds.
    """
    vms = [c.new for c in talk.calls if c.call == "KVM_CREATE_VM" and c.new and c.said.get("argument") == TDX_VM]
    return [_story(vm, talk, host, guest) for vm in vms]


def _story(vm: str, talk: Talk, host: TdxHost | None, guest: Guest) -> Story | NoTd:
    vcpus = [call.new for call in talk.calls if call.on == vm and call.call == "KVM_CREATE_VCPU" and call.new]
    of_vm = [call for call in talk.calls if call.on == vm]
    init = next((call for call in of_vm if call.command == "KVM_TDX_INIT_VM" and not call.errno), None)
    if init is None:
        refusals = [f"{call.errno}: {call.why}" for call in of_vm if call.command == "KVM_TDX_INIT_VM"]
        return NoTd(vm, refusals[-1] if refusals else "KVM_TDX_INIT_VM was never called")
    configurable: Cpuid = {}
    for call in of_vm:
        if call.command in OFFERS and not call.errno:
            configurable = cpuid(call.out)
    asked = chosen(init)
    if asked.attributes is None or asked.xfam is None:
        return NoTd(vm, "what KVM_TDX_INIT_VM was given is not in the record")
    attributes, xfam = asked.attributes, asked.xfam
    wanted = cpuid(init.said)
    if host is not None:  # KVM does not flag what has a sub-leaf; the module's table knows
        configurable = spelled_like(configurable, host.module.configurable)
        wanted = spelled_like(wanted, host.module.configurable)
    actual = [_read(vcpu, talk) for vcpu in vcpus]
    notes: list[str] = []
    given = _given(vcpus[0], talk) if vcpus else None
    if given is None:
        notes.append(
            "no vCPU was given a CPUID (KVM_SET_CPUID2): what KVM_TDX_INIT_VM was given is taken as the request"
        )
    td = _by_the_tables(host, attributes, xfam, wanted, notes) if host else None
    first = next((read for read in actual if read), None)
    if first is None:
        notes.append(
            "the VMM never read the TD's CPUID (KVM_TDX_GET_CPUID); shown is what the module's tables give"
            if td
            else "the VMM never read the TD's CPUID (KVM_TDX_GET_CPUID), and no tables are known: nothing to compare"
        )
        first = dict(td.cpuid) if td else {}
    judge: Judge = EvidenceJudge()
    look = None
    if host is not None and td is not None:
        judge = ModuleJudge(host.module, td, UNSUPPORTED_CPUID)
        look = View(guest, Tables(host.module, td.native), first, _told(vcpus, talk), complete=True).of
    evidence = Evidence(_asked(given, wanted, configurable), {}, configurable, wanted, first)
    lines = reconcile(evidence, judge, look=look)
    for number, other in enumerate(actual):
        if other and other is not first:
            lines += differing(first, other, number)
    finalised = any(call.command == "KVM_TDX_FINALIZE_VM" and not call.errno for call in of_vm)
    return Story(vm, len(vcpus), attributes, xfam, finalised, count(lines), lines, notes)


def _read(vcpu: str, talk: Talk) -> Cpuid:
    """The CPUID that the VMM read from this vCPU; empty if it did not."""
    answers = [call for call in talk.calls if call.on == vcpu and call.command in READS and not call.errno]
    return cpuid(answers[-1].out) if answers else {}


def _given(vcpu: str, talk: Talk) -> Cpuid | None:
    """What the VMM first told KVM that this vCPU has."""
    answers = [call for call in talk.calls if call.on == vcpu and call.call == "KVM_SET_CPUID2" and not call.errno]
    return cpuid(answers[0].said) if answers else None


def _told(vcpus: Sequence[str], talk: Talk) -> Cpuid:
    """What KVM took the first vCPU's CPUID to be in the end; it answers from there."""
    answers = [call for call in talk.calls if call.on in vcpus[:1] and call.call == "KVM_SET_CPUID2" and not call.errno]
    return cpuid(answers[-1].said) if answers else {}


def _asked(given: Cpuid | None, chosen: Cpuid, configurable: Cpuid) -> Cpuid:
    """What was asked for: KVM_TDX_INIT_VM where there was a choice, else what KVM was told of the vCPU.

    A VMM may read the TD's CPUID and correct its own before it tells KVM, as QEMU does; the choice comes before that.
    """
    if given is None:
        return chosen
    asked = dict(spelled_like(given, configurable))
    for leaf, mask in configurable.items():
        asked[leaf] = asked.get(leaf, ZERO).without(mask) | chosen.get(leaf, ZERO) & mask
    return asked


def _by_the_tables(host: TdxHost, attributes: int, xfam: int, chosen: Cpuid, notes: list[str]) -> Td | None:
    config = {leaf: for_module(leaf, value) for leaf, value in chosen.items()}
    module = host.module
    params = TdParams(attributes | module.attributes_fixed1, xfam | module.xfam_fixed1, config)
    try:
        return init_td(module, host.platform, params)
    except SeamcallError as error:
        notes.append(f"module {module.name} as this version knows it refuses this TD: {error}")
        return None
