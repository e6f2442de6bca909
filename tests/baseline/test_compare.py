"""What a check calls a change, and which machine types must have none."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_client.baseline import show
from qmp_client.baseline.compare import Change, changes, compare
from qmp_client.baseline.guest import Guest, Seen
from qmp_client.baseline.machine_type import age, frozen, newer
from qmp_client.baseline.text import Baseline
from tests.baseline.test_text import GUESTS, both, td

AVX2, NO_AVX2 = {"0x7.0.ebx": Seen(0x21)}, {"0x7.0.ebx": Seen(0x01)}


@pytest.mark.parametrize(
    ("machine", "qemu", "expected"),
    [
        ("pc-q35-10.1", "10.2.2 (Debian 1:10.2.2+ds-1)", True),
        ("pc-q35-10.2", "10.2.0", True),
        ("pc-q35-9.2", "10.2.0", True),
        ("pc-q35-11.0", "10.2.50", False),
        ("pc-q35-10.2", "10.2.94", True),
        ("q35", "10.2.2", False),
        ("microvm", "10.2.2", False),
        ("pc-q35-rhel9.6.0", "10.2.2", False),
        ("pc-q35-10.1", "", True),
    ],
)
def test_released_versions_are_frozen(machine: str, qemu: str, expected: bool) -> None:
    assert frozen(machine, qemu) is expected


def test_machine_types_are_in_the_order_of_their_age() -> None:
    assert sorted(["q35", "pc-q35-10.1", "pc-q35-9.2"], key=age) == ["pc-q35-9.2", "pc-q35-10.1", "q35"]
    offered = ["pc-q35-9.1", "pc-q35-10.2", "pc-q35-10.10", "pc-i440fx-10.2", "q35"]
    assert newer(offered, ["pc-q35-10.1", "q35"]) == ["pc-q35-10.2", "pc-q35-10.10"]


@settings(deadline=None)
@given(GUESTS, GUESTS)
def test_there_are_changes_exactly_when_guests_differ(one: Guest, two: Guest) -> None:
    assert bool(list(changes(one, two))) == (one != two)
    assert [(c.where, c.before) for c in changes(one, two)] == [(c.where, c.now) for c in changes(two, one)]


def test_a_change_is_told_by_field() -> None:
    assert list(changes(AVX2, NO_AVX2)) == [Change("0x7.0.ebx[5]", "avx2", "1", "0")]
    assert list(changes({"xfam": Seen(7)}, {"xfam": Seen(3)})) == [Change("xfam", "AVX", "0x7", "0x3")]
    to_hypercall = list(changes({"0x2.eax": Seen(1)}, {"0x2.eax": Seen(1, True)}))
    assert to_hypercall == [Change("0x2.eax", "how the guest gets it", "directly", "by hypercall")]


def found(now: dict[str, Guest], *, strict: bool = False, failed: list[str] | None = None) -> show.Found:
    before = Baseline("10.2.2", "model", {td("EPYC"): both(AVX2, AVX2), td("EPYC-v2"): both(AVX2, AVX2)})
    machines = compare(before, {td("EPYC"): now, td("EPYC-v2"): now})
    return show.Found("q35", "10.2.2", "10.2.3", machines, failed or [], [], strict)


def test_a_version_must_not_change_and_the_rest_may() -> None:
    assert found(both(AVX2, AVX2)).exit_code == 0
    assert found(both(AVX2, NO_AVX2)).exit_code == 0
    assert found(both(AVX2, NO_AVX2), strict=True).exit_code == 1
    assert found(both(NO_AVX2, AVX2)).exit_code == 1
    assert found(both(NO_AVX2, AVX2), failed=["host: QEMU died"]).exit_code == 4


def test_only_what_was_run_again_is_compared() -> None:
    result = found({"q35": NO_AVX2}, failed=["pc-q35-10.1 failed"])
    assert [(machine.name, machine.changed) for machine in result.machines] == [("q35", 2)]


def test_tds_with_the_same_changes_are_said_together() -> None:
    out = io.StringIO()
    show.show(found(both(NO_AVX2, AVX2)), out)
    text = out.getvalue()
    assert "pc-q35-10.1 (must never change): 2 of 2 TDs changed" in text
    assert "EPYC, EPYC-v2 (module 1.5.05" in text
    assert text.count("avx2") == 1
    assert "q35 (may change): unchanged" in text


def test_ci_sees_the_machine_type_that_failed() -> None:
    result = found(both(NO_AVX2, NO_AVX2), failed=["host <1>: QEMU died"])
    root = ElementTree.fromstring(show.junit(result))
    assert [case.get("name") for case in root if case.find("failure") is not None] == ["pc-q35-10.1"]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    text = show.markdown(result)
    assert "## ❌ pc-q35-10.1" in text
    assert "## ✅ q35" in text
    assert "0x7.0.ebx[5]" in text


@given(st.text())
def test_junit_is_xml_whatever_qemu_said(message: str) -> None:
    result = found(both(AVX2, AVX2), failed=[message])
    root = ElementTree.fromstring(show.junit(result))
    assert [case.get("classname") for case in root if case.find("error") is not None] == ["baseline.q35"]
