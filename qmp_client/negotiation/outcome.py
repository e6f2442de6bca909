"""What a negotiation comes to: the choice from what is asked and offered, the report from what was read. Pure.

The evidence can be QEMU's own, over QMP, or predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from plugin import document
from plugin.cpuid import ZERO, Cpuid, Leaf
from plugin.cpuid.fields import all_fields
from plugin.cpuid.values import signature
from plugin.kvm.policy import UNSUPPORTED_CPUID
from plugin.qemu.request.words import load_features
from plugin.tdx_module import TdxHost, published_names
from plugin.tdx_module.guests import LINUX, Guest
from plugin.tdx_module.names import MIGRATABLE
from qmp_client.entries import Entry, GuestEntry, to_cpuid, to_entries
from qmp_client.errors import QemuError
from qmp_client.names import a_module
from qmp_client.negotiation.choose import POLICIES, Choice, with_a_width_of_kvm, with_platform_signature
from qmp_client.negotiation.contradictions import emptied
from qmp_client.negotiation.referee import Referee
from qmp_client.negotiation.vcpu import Vcpu
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import enforces, is_named_model, settings
from qmp_client.qmp.wire import ConfigCpuid, RequestedCpuid
from qmp_client.reconcile import words
from qmp_client.reconcile.cause import Evidence
from qmp_client.reconcile.news import nearest, news
from qmp_client.reconcile.reconcile import count, differing, reconcile
from qmp_client.reconcile.view import Tables, View
from qmp_client.reconcile.words import Words
from qmp_client.report import model
from qmp_client.report.model import Report


def decide(wish: Wish, asked: RequestedCpuid, configurable: Cpuid, *, named_model: bool = False) -> Choice:
    """Compute the choice. Pure."""
    attributes = asked.attributes if wish.attributes is None else wish.attributes
    cpuid = wish.entries
    if cpuid is None:
        cpuid = with_a_width_of_kvm(POLICIES[wish.policy](to_cpuid(asked.cpuid), configurable), configurable)
        if named_model and not attributes & MIGRATABLE:
            cpuid = with_platform_signature(cpuid)
    return Choice(attributes, asked.xfam if wish.xfam is None else wish.xfam, cpuid)


class Subject(NamedTuple):
    """Which TD a report is about: what is known of it before anything is read."""

    qemu: str
    """The binary, or where it was found; as ``model.Environment`` has it."""
    kvm: str
    cpu: str
    """As QEMU takes it, as are ``smp`` and ``machine``."""
    smp: str
    machine: str
    wish: Wish
    """What was wanted beside the machine."""
    host: TdxHost | None = None
    """What is simulated; None on hardware."""
    guest: Guest = LINUX
    """Who executes CPUID in the TD."""


class Reading(NamedTuple):
    """What was read of it."""

    qemu_version: str
    config: ConfigCpuid
    choice: Choice
    vcpus: Sequence[Vcpu]
    caveats: Sequence[str] = ()
    """What the reading cannot promise, and why."""
    kvm_copy: Sequence[Entry] | None = None
    """What KVM took the CPUID of the first vCPU to be; None where it does not tell."""


def report_on(subject: Subject, reading: Reading, judge: Referee) -> Report:
    """Reconcile what was read, and say it. Raises QemuError when there is no vCPU."""
    if not reading.vcpus:
        raise QemuError("QEMU reports no vCPU")
    config, choice, vcpus = reading.config, reading.choice, reading.vcpus
    first = vcpus[0]
    evidence = Evidence(
        requested=to_cpuid(first.requested.cpuid),
        dropped=to_cpuid(first.requested.dropped),
        configurable=to_cpuid(config.cpuid),
        chosen=choice.cpuid,
        actual=first.actual,
    )
    said = words_of(subject.cpu, subject.wish, evidence.configurable)
    view = _view(subject.guest, evidence, reading, judge)
    lines = reconcile(evidence, judge.judge, said, look=view.of, answers=config.interface == "upstream")
    # On hardware the module is not known; the newest one's gates explain a choice, they hardly change.
    module = subject.host.module if subject.host else a_module(published_names()[-1])
    for vcpu in vcpus[1:]:
        lines += differing(first.actual, vcpu.actual, vcpu.cpu_index)
    return Report(
        request=model.Request(
            cpu=document.name(subject.cpu),
            smp=document.name(subject.smp),
            machine=document.name(subject.machine),
            choose=document.name(subject.wish.source),
            guest=subject.guest.name,
        ),
        environment=model.Environment(
            qemu=document.name(subject.qemu),
            qemu_version=reading.qemu_version,
            kvm=subject.kvm,
            interface=config.interface,
            module=subject.host.module.name if subject.host else None,
            platform=subject.host.platform.name if subject.host else None,
            caveats=list(reading.caveats),
        ),
        configurable=config.cpuid,
        choice=model.Choice(choice.attributes, choice.xfam, to_entries(choice.cpuid)),
        actual=to_entries(first.actual),
        guest=_entries(view),
        kvm_copy=list(reading.kvm_copy or ()),
        vcpus=len(vcpus),
        summary=count(lines),
        lines=lines,
        notes=[
            *judge.notes,
            *view.assumptions(),
            *_signatures(evidence),
            *emptied(choice.cpuid, choice.xfam, module),
            *_news(evidence, config.interface),
        ],
    )


def words_of(cpu: str, wish: Wish, configurable: Cpuid) -> Words:
    """What the user said in so many words, of ``-cpu`` last: where it contradicts a file, the file chooses."""
    named = settings(cpu)
    said = words.of_cpu(named, load_features().features) if named else []
    if wish.xfam is not None:
        said += words.of_xfam(f"--xfam {wish.xfam:#x}", wish.xfam)
    if wish.entries is not None:
        said += words.of_choice(wish.source, wish.entries, configurable)
    return words.sort(said, named_model=is_named_model(cpu), enforce=enforces(cpu))


def _view(guest: Guest, evidence: Evidence, reading: Reading, judge: Referee) -> View:
    """What the guest sees. Where KVM does not tell its copy, it is taken to be what QEMU asked for."""
    tables = judge.tables or Tables(
        nearest(evidence.configurable, evidence.actual, [a_module(name) for name in published_names()]), None
    )
    known = reading.kvm_copy is not None
    answers = to_cpuid(reading.kvm_copy or ()) if known else evidence.requested
    return View(guest, tables, evidence.actual, answers, complete=known)


def _entries(view: View) -> list[GuestEntry]:
    """The view as data."""
    found = []
    for leaf, sight in view.everything.items():
        eax, ebx, ecx, edx = sight.registers or (None,) * 4
        found.append(GuestEntry(leaf.number, eax, ebx, ecx, edx, subleaf=leaf.subleaf, ve=sight.ve))
    return found


def load_tables() -> None:
    """Read what every report needs, so that it is there when a report is made."""
    all_fields()
    for name in published_names():
        a_module(name)


def _news(evidence: Evidence, interface: str) -> list[str]:
    known = [a_module(name) for name in published_names()]
    return news(evidence, known, UNSUPPORTED_CPUID, whole_offer=interface == "upstream")


def _signatures(evidence: Evidence) -> list[str]:
    """Say family, model and stepping as a whole where they are not what was asked for."""
    asked, got = (table.get(Leaf(1), ZERO).eax for table in (evidence.requested, evidence.actual))
    return [f"asked for {signature(asked)}; the TD has {signature(got)}"] if asked != got else []
