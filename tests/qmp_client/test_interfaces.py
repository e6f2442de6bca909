"""Comparing KVM's two interfaces: each kind of difference, and nothing where there is none."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import ZERO, Leaf, Registers
from plugin.cpuid.fields import fields_of
from qmp_client.qemu.record import Record, overcome, refusal
from qmp_client.reconcile.interfaces import Change, Effect, Side, count, differences
from qmp_client.report.model import Environment
from qmp_client.report.policy import moved

HT = 1 << 28
SMEP = 1 << 7
NOTHING = Side({}, {}, {}, {})
words = st.integers(0, 0xFFFFFFFF)
tables = st.dictionaries(
    st.sampled_from([Leaf(1), Leaf(7, 0), Leaf(0xD, 1), Leaf(0x21, 0), Leaf(0x40000001), Leaf(0x80000008)]),
    st.builds(Registers, words, words, words, words),
)
outcomes = st.builds(Side, tables, tables, tables, tables)


def only(changes: list[Change]) -> Change:
    assert len(changes) == 1, changes
    return changes[0]


def test_a_bit_that_kvm_does_not_show_any_more_is_a_loss() -> None:
    upstream = NOTHING._replace(
        configurable={Leaf(1): Registers(edx=HT)}, chosen={Leaf(1): ZERO}, actual={Leaf(1): ZERO}
    )
    proposal = NOTHING._replace(actual={Leaf(1): Registers(edx=HT)})
    change = only(differences(upstream, proposal))
    assert (change.effect, change.name, change.where) == (Effect.HIDDEN, "ht", "0x1.edx[28]")
    assert (change.upstream.chosen, change.upstream.got) == (0, 0)
    assert (change.proposal.chosen, change.proposal.got) == (None, 1)
    assert change.sentence == "KVM sets it to 1"


def test_a_hidden_bit_that_changes_nothing_here_says_so() -> None:
    actual = {Leaf(1): Registers(edx=HT)}
    upstream = NOTHING._replace(configurable={Leaf(1): Registers(edx=HT)}, chosen=actual, actual=actual)
    change = only(differences(upstream, NOTHING._replace(actual=actual)))
    assert change.effect is Effect.HIDDEN
    assert "the TD is the same here" in change.sentence


def test_a_bit_that_only_the_proposal_offers_is_a_gain() -> None:
    offered = NOTHING._replace(configurable={Leaf(7, 0): Registers(ebx=SMEP)})
    change = only(differences(NOTHING, offered))
    assert (change.effect, change.critical) == (Effect.OFFERED, True)


def test_a_leaf_that_the_vmm_answered_is_a_loss() -> None:
    upstream = NOTHING._replace(kvm_copy={Leaf(0x40000001): Registers(eax=1 << 7)})
    change = only(differences(upstream, NOTHING))
    assert (change.effect, change.name) == (Effect.BY_HYPERCALL, "kvm-pv-unhalt")


def test_kvm_believing_otherwise_than_the_td_is_ended() -> None:
    td = {Leaf(7, 0): Registers(ebx=SMEP)}
    upstream = NOTHING._replace(actual=td, kvm_copy={Leaf(7, 0): ZERO})
    change = only(differences(upstream, NOTHING._replace(actual=td, kvm_copy=td)))
    assert (change.effect, change.critical) == (Effect.AGREED, True)
    assert "0x0" in change.sentence


def test_what_changes_from_moment_to_moment_is_no_difference() -> None:
    """The APIC id in leaf 1, and OSXSAVE."""
    moving = Registers(ebx=0xFF000000, ecx=1 << 27)
    assert not differences(NOTHING._replace(actual={Leaf(1): ZERO}), NOTHING._replace(actual={Leaf(1): moving}))


def test_what_could_not_be_chosen_has_no_choice() -> None:
    upstream = NOTHING._replace(chosen={Leaf(7, 0): Registers(ebx=SMEP)}, actual={Leaf(7, 0): Registers(ebx=SMEP)})
    assert only(differences(upstream, NOTHING)).upstream.chosen is None


def test_a_leaf_that_is_read_back_on_one_side_only() -> None:
    td = NOTHING._replace(actual={Leaf(7, 0): Registers(ebx=SMEP)})
    assert only(differences(td, NOTHING)).effect is Effect.UNREADABLE
    assert only(differences(NOTHING, td)).effect is Effect.READABLE


def test_another_value_in_the_td() -> None:
    upstream = NOTHING._replace(actual={Leaf(7, 0): Registers(ebx=SMEP)})
    change = only(differences(upstream, NOTHING._replace(actual={Leaf(7, 0): ZERO})))
    assert change.effect is Effect.ALTERED


def test_leaves_are_the_same_in_either_spelling() -> None:
    """QEMU's KVM copy has sub-leaves where the module has none."""
    upstream = NOTHING._replace(actual={Leaf(0x14): ZERO}, kvm_copy={Leaf(0x14, 0): ZERO})
    assert not differences(upstream, upstream)


@given(outcomes)
def test_the_same_outcome_twice_differs_in_nothing(outcome: Side) -> None:
    assert differences(outcome, outcome) == []


@given(outcomes, outcomes)
def test_every_difference_that_counts_is_told_once(one: Side, two: Side) -> None:
    changes = differences(one, two)
    places = [change.where for change in changes]
    assert len(places) == len(set(places))
    assert sum(count(changes).values()) == len(changes)
    hidden = {(c.leaf, c.subleaf, c.register, c.low) for c in changes if c.effect is Effect.HIDDEN}
    for leaf, mask in one.configurable.items():
        for field in fields_of(leaf):
            gone = field.extract(mask.without(two.configurable.get(leaf, ZERO)))
            assert ((leaf.number, leaf.subleaf, field.register, field.low) in hidden) == bool(gone)


# What a simulated KVM tells besides


def record(*refused: tuple[str, str, int, bool]) -> Record:
    told = [dict(zip(("errno", "why", "times", "overcome"), one, strict=True)) for one in refused]
    about = {"module": "1.5.05", "platform": "emerald-rapids", "cpuid": {"active": True}, "warnings": [], "tds": []}
    return msgspec.convert(about | {"refused": told}, Record)


def test_only_a_refusal_that_was_the_last_word_is_why_qemu_ended() -> None:
    assert refusal(None) == ""
    assert refusal(record()) == ""
    assert refusal(record(("E2BIG", "no room", 1, True))) == ""
    last = record(("E2BIG", "no room", 1, True), ("EINVAL", "KVM_TDX_INIT_VM: no", 1, False))
    assert refusal(last) == "EINVAL: KVM_TDX_INIT_VM: no"
    assert refusal(record(("EAGAIN", "no entropy", 2, False))) == "EAGAIN: no entropy (2 times in a row)"


def test_what_was_tried_again_is_told_if_it_was_no_protocol() -> None:
    told = overcome(record(("E2BIG", "no room", 1, True), ("EAGAIN", "no entropy", 3, True)))
    assert told == ["KVM refused 3 times before it went on: no entropy"]


def test_what_moved_since_a_report_was_saved_is_named() -> None:
    before = Environment(qemu="q", qemu_version="10.2.2", kvm="simulated", interface="upstream", module="1.5.01")
    now = Environment(qemu="q", qemu_version="10.2.2", kvm="simulated", interface="upstream", module="1.5.05")
    assert moved(before, before) == []
    assert moved(before, now) == ["since the expected report was saved: TDX module 1.5.01 -> 1.5.05"]
