"""What of a report belongs in a baseline."""

from __future__ import annotations

from msgspec.structs import replace

from qmp_client.baseline.guest import Seen, difference, explain, guest, spelled
from qmp_client.entries import Entry, GuestEntry
from tests.matrix.results import report


def test_what_the_guest_sees_counts_whoever_answers() -> None:
    seen = guest(
        replace(
            report([]),
            actual=[Entry(7, 0, 0xFFFF, 0, 0, subleaf=0)],
            guest=[
                GuestEntry(7, 0, 0x21, 0, 0, subleaf=0),
                GuestEntry(0x2, 0, 0, 0, 0, ve="guest-zeros"),
                GuestEntry(0x16, ve="vmm"),
                GuestEntry(0x40000000, 0x40000010, 0, 0, 0, ve="vmm"),
            ],
        )
    )
    assert seen == {"xfam": Seen(7), "0x7.0.ebx": Seen(0x21), "0x40000000.eax": Seen(0x40000010, True)}


def test_what_depends_on_the_moment_is_left_out() -> None:
    osxsave, apic_id = 1 << 27, 0x05000000
    seen = guest(replace(report([]), guest=[GuestEntry(1, 0x806F8, apic_id | 0x800, osxsave | 1, 0)]))
    assert seen["0x1.ecx"].value == 1
    assert seen["0x1.ebx"].value == 0x800


def test_a_leaf_is_spelled_one_way_whoever_names_it() -> None:
    assert str(spelled(7, None)) == str(spelled(7, 0)) == "0x7.0"
    assert str(spelled(1, None)) == str(spelled(1, 0)) == "0x1"
    assert str(spelled(0xD, 18)) == "0xd.18"


def test_values_are_explained() -> None:
    assert explain("0x7.0.ebx", 0x21) == "fsgsbase avx2"
    assert explain("0x0.ebx", 0x756E6547) == "cpu_vendorid_0='Genu'"
    assert explain("xfam", 7) == "X87 SSE AVX"
    assert explain("0x7.0.ebx", 0) == ""
    assert difference("0x7.0.ebx", 0x20, 0x1) == "+fsgsbase -avx2"
    assert difference("xfam", 3, 5) == "-SSE +AVX"
