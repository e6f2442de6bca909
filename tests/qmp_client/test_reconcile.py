"""Reconciling: one verdict per field, each with its cause; and what a policy makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import ZERO, Leaf, Registers
from plugin.cpuid.fields import fields_of
from plugin.qemu.request.words import load_features
from plugin.tdx_module import TdParams, init_td, load_host, load_module, load_platform
from plugin.tdx_module.guests import GUESTS, find_guest
from plugin.tdx_module.guests import TD as TD_ITSELF
from qmp_client.qemu.command_line import settings
from qmp_client.reconcile.cause import Evidence, EvidenceJudge, ModuleJudge
from qmp_client.reconcile.reconcile import count, differing, reconcile
from qmp_client.reconcile.verdict import Kind, Line, Verdict
from qmp_client.reconcile.view import Tables, View
from qmp_client.reconcile.words import NOTHING_SAID, of_cpu, sort
from qmp_client.report.policy import DEFAULT, WORDS, Criteria, compare, parse

MODULE = load_module("1.5.05")
PLATFORM = load_platform("emerald-rapids")
TD = init_td(MODULE, PLATFORM, TdParams(1 << 28, 0x602E7, {}))
words = st.integers(0, 0xFFFFFFFF)
tables = st.dictionaries(
    st.sampled_from([Leaf(1), Leaf(7, 0), Leaf(0xD, 1), Leaf(0x21, 0), Leaf(0x80000008)]),
    st.builds(Registers, words, words, words, words),
)


def evidence(
    requested: dict[Leaf, Registers],
    actual: dict[Leaf, Registers],
    *,
    dropped: dict[Leaf, Registers] | None = None,
    configurable: dict[Leaf, Registers] | None = None,
    chosen: dict[Leaf, Registers] | None = None,
) -> Evidence:
    return Evidence(requested, dropped or {}, configurable or {}, chosen or {}, actual)


def only(lines: list[Line]) -> Line:
    assert len(lines) == 1, lines
    return lines[0]


SMEP = 1 << 7


def test_a_bit_that_the_td_lacks_is_forced_off_and_marked_critical() -> None:
    line = only(reconcile(evidence({Leaf(7, 0): Registers(ebx=SMEP)}, {Leaf(7, 0): ZERO}), EvidenceJudge()))
    assert (line.verdict, line.name, line.critical) == (Verdict.FORCED_OFF, "smep", True)
    assert (line.asked, line.got) == (1, 0)
    assert line.where == "0x7.0.ebx[7]"
    assert "inferred" in line.cause, "without tables nothing is certain"


def test_a_bit_nobody_asked_for_is_forced_on_when_qemu_knows_its_name() -> None:
    line = only(reconcile(evidence({Leaf(7, 0): ZERO}, {Leaf(7, 0): Registers(ebx=SMEP)}), EvidenceJudge()))
    assert line.verdict is Verdict.FORCED_ON


def test_a_leaf_nobody_asked_for_is_unasked() -> None:
    lines = reconcile(evidence({}, {Leaf(0x21, 0): Registers(ebx=0x65746E49)}), EvidenceJudge())
    assert {line.verdict for line in lines} == {Verdict.UNASKED}


def test_a_field_of_several_bits_is_compared_as_a_value() -> None:
    asked, got = Registers(eax=46), Registers(eax=52)
    line = only(reconcile(evidence({Leaf(0x80000008): asked}, {Leaf(0x80000008): got}), EvidenceJudge()))
    assert (line.verdict, line.asked, line.got, line.low, line.high) == (Verdict.ALTERED, 46, 52, 0, 7)


def test_what_qemu_dropped_counts_as_asked() -> None:
    line = only(
        reconcile(
            evidence({Leaf(7, 0): ZERO}, {Leaf(7, 0): ZERO}, dropped={Leaf(7, 0): Registers(ebx=SMEP)}),
            EvidenceJudge(),
        )
    )
    assert (line.verdict, line.cause) == (Verdict.FORCED_OFF, "qemu-dropped")


def test_the_apic_id_may_differ() -> None:
    line = only(reconcile(evidence({Leaf(1): Registers(ebx=5 << 24)}, {Leaf(1): ZERO}), EvidenceJudge()))
    assert line.verdict is Verdict.DYNAMIC


def test_a_leaf_that_the_td_does_not_have_comes_by_hypercall() -> None:
    lines = reconcile(evidence({Leaf(0x40000001): Registers(eax=1)}, {}), EvidenceJudge())
    assert {line.verdict for line in lines} == {Verdict.BY_HYPERCALL}
    assert not any(line.deviates for line in lines)


def test_a_named_feature_gets_a_line_even_when_nothing_is_set() -> None:
    nothing = evidence({Leaf(7, 0): ZERO}, {Leaf(7, 0): ZERO})
    assert reconcile(nothing, EvidenceJudge()) == []
    line = only(reconcile(nothing, EvidenceJudge(), sort(of_cpu(settings("host,-waitpkg"), {}))))
    assert (line.name, line.named, line.verdict) == ("waitpkg", True, Verdict.HONOURED)


def test_spellings_of_a_leaf_meet() -> None:
    pair = evidence({Leaf(0x1C): Registers(eax=1)}, {Leaf(0x1C, 0): Registers(eax=1)})
    assert {line.verdict for line in reconcile(pair, EvidenceJudge())} == {Verdict.HONOURED}


@given(tables, tables)
def test_every_set_bit_is_in_exactly_one_line(requested: dict[Leaf, Registers], actual: dict[Leaf, Registers]) -> None:
    lines = reconcile(evidence(requested, actual), EvidenceJudge())
    places = [(line.leaf, line.subleaf, line.register, line.low) for line in lines]
    assert len(places) == len(set(places))
    for leaf in requested.keys() | actual.keys():
        for field in fields_of(leaf):
            asked = field.extract(requested.get(leaf, ZERO))
            got = field.extract(actual.get(leaf, ZERO))
            assert ((leaf.number, leaf.subleaf, field.register, field.low) in places) == bool(asked or got)


@given(tables)
def test_a_td_that_is_what_was_asked_for_has_no_deviation(requested: dict[Leaf, Registers]) -> None:
    lines = reconcile(evidence(requested, dict(requested)), EvidenceJudge())
    assert not any(line.deviates for line in lines)
    summary = count(lines)
    assert summary["asked"] == summary["honoured"] + summary["dynamic"]


def test_the_module_s_tables_name_the_cause() -> None:
    judge = ModuleJudge(MODULE, TD, {Leaf(7, 0): Registers(ecx=1 << 5)})
    lines = reconcile(
        evidence(
            {Leaf(7, 0): Registers(ebx=1 << 16, ecx=1 << 5), Leaf(0): Registers(eax=0x20)},
            dict(TD.cpuid),
            configurable={Leaf(7, 0): Registers(ebx=1 << 16)},
            chosen={Leaf(7, 0): ZERO},
        ),
        judge,
    )
    causes = {(line.leaf, line.name): line.cause for line in lines}
    assert causes[7, "waitpkg"] == "kvm-filtered"
    assert causes[0, "max_std_leaf"] == "fixed-1"


def test_a_td_that_is_not_as_the_tables_say_is_called_so() -> None:
    actual = dict(TD.cpuid)
    actual[Leaf(0)] = actual[Leaf(0)].with_("eax", 0x24)
    lines = reconcile(evidence({Leaf(0): Registers(eax=0x20)}, actual), ModuleJudge(MODULE, TD, {}))
    line = next(line for line in lines if line.leaf == 0 and line.register == "eax")
    assert line.cause.startswith("not as module 1.5.05 would have it")


def test_a_vcpu_that_differs_is_named() -> None:
    first, other = {Leaf(7, 0): Registers(ebx=SMEP)}, {Leaf(7, 0): ZERO}
    line = only(differing(first, other, vcpu=3))
    assert (line.cause, line.vcpu, line.critical) == ("vcpu-differs", 3, True)
    assert (line.verdict, line.kind) == (Verdict.FORCED_OFF, Kind.VCPUS_DIFFER), "one bit is not altered"
    assert differing({Leaf(1): ZERO}, {Leaf(1): Registers(ebx=1 << 24)}, vcpu=1) == [], "its APIC id is its own"


def test_a_leaf_that_one_vcpu_lacks_is_unreadable_there() -> None:
    lines = differing({Leaf(7, 0): Registers(ebx=SMEP)}, {}, vcpu=1)
    assert {line.verdict for line in lines} == {Verdict.UNREADABLE}
    assert any(line.name == "smep" for line in lines)


def deviation(
    verdict: Verdict = Verdict.FORCED_ON, kind: Kind | None = None, *, enforced: bool = False, waived: str = ""
) -> Line:
    return Line(
        7, "ebx", 7, 7, "smep", 0, None, 1, verdict, "fixed-1", subleaf=0, kind=kind, enforced=enforced, waived=waived
    )


def test_the_default_policy() -> None:
    failing = {kind for kind in Kind if parse(DEFAULT).fails(deviation(kind=kind))}
    assert failing == {Kind.BROKEN_WORD, Kind.CRITICAL, Kind.VCPUS_DIFFER}
    assert not parse(DEFAULT).fails(deviation(Verdict.HONOURED))
    assert not any(parse("none").fails(deviation(kind=kind)) for kind in Kind)


def test_what_is_lost_fails_where_the_model_is_enforced() -> None:
    lost = deviation(Verdict.FORCED_OFF, Kind.LOST, enforced=True)
    assert parse(DEFAULT).fails(lost)
    assert not parse("broken-word").fails(lost), "whoever names words gets these"


@given(st.sampled_from(Kind), st.sampled_from(Verdict), st.sampled_from(WORDS))
def test_each_word_fails_what_it_names(kind: Kind, verdict: Verdict, word: str) -> None:
    line = deviation(verdict, kind)
    assert parse(word).fails(line) == (word in (kind, verdict))
    assert not parse(word).fails(deviation(verdict, kind, waived="known"))


def test_a_saved_report_decides_in_the_policy_s_stead() -> None:
    policy, failing = parse(DEFAULT), deviation(Verdict.FORCED_OFF, Kind.BROKEN_WORD)
    assert (Criteria(policy).exit_code([]), Criteria(policy).exit_code([failing])) == (0, 1)
    assert Criteria(policy, [failing]).exit_code([failing]) == 0, "as it was"
    assert Criteria(parse("none"), [failing]).exit_code([]) == 1, "better than it was is not as it was"


def test_differences_from_a_saved_report() -> None:
    line = deviation()
    assert compare([line], [line]) == []
    assert compare([], [line]) == ["new: 0x7.0.ebx[7] smep: asked 0, got 1, forced-on"]
    assert compare([line], []) == ["gone: 0x7.0.ebx[7] smep: asked 0, got 1, forced-on"]
    assert compare([line], [deviation(Verdict.UNASKED)]) == [
        "changed: 0x7.0.ebx[7] smep: asked 0, got 1, forced-on -> asked 0, got 1, unasked"
    ]


def test_a_leaf_that_waits_for_the_guest_comes_by_hypercall() -> None:
    """Newer modules have values for some leaves and raise #VE all the same, until the guest sets a TD_CTLS bit."""
    newest = load_host("2.0.18", "granite-rapids")
    td = init_td(newest.module, newest.platform, TdParams(1 << 28, 0x602E7, {}))
    judge = ModuleJudge(newest.module, td, {})
    actual = dict(td.cpuid) | {Leaf(6): Registers(eax=0x77)}
    view = View(TD_ITSELF, Tables(newest.module, td.native), actual, {Leaf(6): Registers(eax=4)}, complete=True)
    found = reconcile(evidence({Leaf(6): Registers(eax=4)}, actual), judge, look=view.of)
    lines = [line for line in found if line.leaf == 6]
    assert lines
    assert {line.verdict for line in lines} == {Verdict.BY_HYPERCALL}
    assert {line.cause for line in lines} == {"#VE until the guest sets TD_CTLS.REDUCE_VE: the VMM answers"}
    assert [line.guest for line in lines if line.asked] == [1], "KVM's copy of it"


class TestWhatAGuestSees:
    """The same TD through other eyes: 2.0.18 on Granite Rapids, with MCA and the TSC deadline timer configured."""

    NEWEST = load_host("2.0.18", "granite-rapids")
    ASKED = (
        dict.fromkeys((Leaf(0x2), Leaf(0x16)), Registers(eax=0xD05))
        | {Leaf(1): Registers(ecx=1 << 24, edx=1 << 14)}
        | {Leaf(0x40000000): Registers(eax=0x40000001)}
    )

    def lines(self, guest: str, answers: dict[Leaf, Registers] | None = None, cpu: str = "") -> dict[str, Line]:
        module, platform, _ = self.NEWEST
        config = {Leaf(1): self.ASKED[Leaf(1)]}
        td = init_td(module, platform, TdParams(1 << 28, 0x602E7, config))
        actual = dict(td.cpuid)
        look = View(find_guest(guest), Tables(module, td.native), actual, answers or self.ASKED, complete=True)
        said = evidence(self.ASKED, actual, configurable=dict(module.configurable), chosen=config)
        spoken = sort(of_cpu(settings(cpu), load_features().features)) if cpu else NOTHING_SAID
        return {line.where: line for line in reconcile(said, ModuleJudge(module, td, {}), spoken, look=look.of)}

    def test_a_gated_feature(self) -> None:
        place = "0x1.edx[14]"
        linux, tdvf, wanting = (
            self.lines(guest)[place] for guest in ("linux", "tdvf", "reduce-ve,enum-topology,paravirt=mca")
        )
        assert (linux.got, linux.guest, linux.verdict) == (1, 0, Verdict.FORCED_OFF)
        assert (linux.cause, linux.kind) == ("paravirt.mca", Kind.ARCHITECTURAL)
        assert linux.mend == "no VMM can: the guest has to set FEATURE_PARAVIRT_CTRL.mca"
        assert (tdvf.got, tdvf.guest, tdvf.verdict) == (1, 1, Verdict.HONOURED)
        assert (wanting.guest, wanting.verdict, wanting.cause) == (1, Verdict.HONOURED, "configured")

    def test_a_broken_word_is_broken_for_this_guest(self) -> None:
        line = self.lines("linux", cpu="host,+mca")["0x1.edx[14]"]
        assert (line.kind, line.mend) == (
            Kind.BROKEN_WORD,
            "drop +mca, or let the guest set FEATURE_PARAVIRT_CTRL.mca",
        )
        assert self.lines("tdvf", cpu="host,+mca")["0x1.edx[14]"].verdict is Verdict.HONOURED

    def test_a_bit_that_reads_1_whatever_the_td_holds(self) -> None:
        """MTRR is not configured; firmware sees it, and the line says why."""
        line = self.lines("tdvf")["0x1.edx[12]"]
        assert (line.asked, line.got, line.guest) == (0, 0, 1)
        assert (line.verdict, line.cause) == (Verdict.FORCED_ON, "td-ctls.REDUCE_VE")
        assert "0x1.edx[12]" not in self.lines("linux")

    def test_one_leaf_has_two_answers_in_one_boot(self) -> None:
        seen = {guest: self.lines(guest)["0x16.eax[15:0]"] for guest in ("tdvf", "linux-6.6", "linux")}
        assert [line.guest for line in seen.values()] == [0xD05, 0, 0]
        assert [line.got for line in seen.values()] == [None, None, None]
        assert seen["tdvf"].verdict is Verdict.BY_HYPERCALL
        assert seen["linux-6.6"].verdict is Verdict.ZEROED
        assert (seen["linux"].verdict, seen["linux"].cause) == (Verdict.ALTERED, "td-ctls.REDUCE_VE")

    def test_a_paravirtual_leaf_is_the_vmms_for_everybody(self) -> None:
        for guest in GUESTS:
            line = self.lines(guest)["0x40000000.eax[31:0]"]
            assert (line.verdict, line.guest) == (Verdict.BY_HYPERCALL, 0x40000001)

    @pytest.mark.parametrize("guest", ["td", "linux-6.6", "tdvf"])
    def test_without_controls_the_guest_sees_what_the_td_holds_or_ve(self, guest: str) -> None:
        always = {str(bit) for bit in self.NEWEST.module.guest.on_before}
        for where, line in self.lines(guest).items():
            if line.verdict not in (Verdict.BY_HYPERCALL, Verdict.ZEROED) and where not in always:
                assert line.guest == line.got, where

    @pytest.mark.parametrize("guest", list(GUESTS))
    def test_where_they_differ_the_line_says_why(self, guest: str) -> None:
        for line in self.lines(guest).values():
            if line.guest != line.got:
                assert line.cause.startswith(("#VE", "paravirt.", "td-ctls.")) or ", td-ctls." in line.cause, line

    def test_the_summary_counts_what_the_guest_answers_itself(self) -> None:
        counts = count(self.lines("linux-6.6").values())
        assert counts["zeroed-by-guest"] > 0
        assert counts["asked"] == 2, "MCA and the timer; what raises #VE was not the TD's to answer"
