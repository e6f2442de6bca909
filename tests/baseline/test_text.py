"""The baseline's file: nothing is lost in it, and a change shows where it is and nowhere else."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_client.baseline.guest import Guest, Seen, Td
from qmp_client.baseline.text import TITLE, Baseline, read, render
from qmp_client.errors import UsageError

PLACES = ["attributes", "xfam", "0x0.eax", "0x2.eax", "0x7.0.ebx", "0x7.1.eax", "0xd.18.ecx", "0x80000008.eax"]
CPUS = ["host", "host,-avx512f", "EPYC", "EPYC-v2", "EPYC-v10", "mine,model-id=A 'B' C"]
VALUES = st.one_of(st.sampled_from([0x10, 0x30]), st.integers(1, (1 << 32) - 1))
GUESTS = st.dictionaries(st.sampled_from(PLACES), st.builds(Seen, VALUES, st.booleans()))
TDS = st.builds(
    Td,
    st.sampled_from(["upstream", "proposal"]),
    st.just("1.5.05"),
    st.sampled_from(["emerald-rapids", "my platform.json"]),
    st.sampled_from(["1", "sockets=2,cores=2"]),
    st.sampled_from(CPUS),
)
MACHINES = ["pc-q35-9.2", "pc-q35-10.1", "q35"]


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    machines = draw(st.lists(st.sampled_from(MACHINES), min_size=1, unique=True))
    alike = draw(GUESTS)
    guests = st.fixed_dictionaries({machine: st.one_of(st.just(alike), GUESTS) for machine in machines})
    tds = draw(st.dictionaries(TDS, guests, min_size=1))
    return Baseline("10.2.2 (Debian)", "model", tds, draw(st.sampled_from(["td", "linux", "reduce-ve,paravirt=mca"])))


@settings(deadline=None)
@given(baselines())
def test_what_is_written_is_read(baseline: Baseline) -> None:
    assert read(render(baseline), "x") == baseline


@settings(deadline=None)
@given(baselines())
def test_the_order_of_the_grid_does_not_matter(baseline: Baseline) -> None:
    turned = {td: dict(reversed(list(guests.items()))) for td, guests in reversed(list(baseline.tds.items()))}
    assert render(baseline._replace(tds=turned)) == render(baseline)


@settings(deadline=None)
@given(baselines(), st.data())
def test_a_diff_has_only_lines_of_the_register_that_changed(baseline: Baseline, data: st.DataObject) -> None:
    td = data.draw(st.sampled_from(list(baseline.tds)))
    machine = data.draw(st.sampled_from(list(baseline.tds[td])))
    place = data.draw(st.sampled_from(PLACES))
    guest: Guest = {**baseline.tds[td][machine], place: Seen(0x12345)}
    changed = baseline._replace(tds={**baseline.tds, td: {**baseline.tds[td], machine: guest}})
    diff = list(difflib.ndiff(render(baseline).splitlines(), render(changed).splitlines()))
    assert {line.split()[1] for line in diff if line[0] in "+-"} <= {place}


def td(cpu: str) -> Td:
    return Td("upstream", "1.5.05", "emerald-rapids", "1", cpu)


def both(old: Guest, new: Guest) -> dict[str, Guest]:
    return {"pc-q35-10.1": old, "q35": new}


def test_the_file_as_a_reviewer_sees_it() -> None:
    head, other = {"0x2.eax": Seen(0xFF, True), "0x7.0.ebx": Seen(0x21)}, {"0x7.0.ebx": Seen(0x1)}
    text = render(
        Baseline("10.2.2", "model", {td("EPYC"): both(head, head), td("EPYC-v2"): both(other, {**head, **other})})
    )
    assert text.splitlines() == [
        TITLE,
        "qemu 10.2.2",
        "choose model",
        "guest td",
        "",
        "td kvm=upstream module=1.5.05 platform=emerald-rapids smp=1 cpu=EPYC",
        "machines pc-q35-10.1 q35",
        "  0x2.eax          000000ff  #VE  iteration_count=255",
        "  0x7.0.ebx        00000021  fsgsbase avx2",
        "",
        "td kvm=upstream module=1.5.05 platform=emerald-rapids smp=1 cpu=EPYC-v2",
        "like cpu=EPYC",
        "  0x2.eax          00000000  @pc-q35-10.1  iteration_count=0",
        "  0x7.0.ebx        00000001  -avx2",
    ]


def test_the_words_behind_a_value_are_only_for_people() -> None:
    one = Baseline("10.2.2", "model", {td("EPYC"): {"q35": {"0x7.0.ebx": Seen(0x21)}}})
    assert read(render(one).replace("fsgsbase avx2", "called otherwise one day"), "x") == one


SECTION = "td kvm=upstream module=1.5.05 platform=emerald-rapids smp=1 cpu=host\nmachines q35"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what", "is not a baseline"),
        (f"{TITLE}\n\n{SECTION}\n  0x7.0.ebx  xyz", "line 5"),
        (f"{TITLE}\n\n{SECTION}\n  0x7.0.xyz  01", "line 5"),
        (f"{TITLE}\n\n{SECTION}\n  0x7.0.ebx  01  @pc-i440fx-9.2", "not among the machines"),
        (f"{TITLE}\n\n{SECTION}\n  0x7.0.ebx  01\n  0x7.0.ebx  02", "twice for q35"),
        (f"{TITLE}\n\n{SECTION}\n\n{SECTION}", "there twice"),
        (f"{TITLE}\n\n{SECTION}\n<<<<<<< HEAD", "line 5: '<<<<<<< HEAD'"),
        (f"{TITLE}\n\ntd cpu=host\nmachines q35", "line 3"),
        (f"{TITLE}\n\ntd color=red\nmachines q35", "color=red"),
        (
            f"{TITLE}\n\n{SECTION}\n\n{SECTION.replace('host', 'max').replace('machines q35', 'like cpu=EPYC')}",
            "no EPYC",
        ),
        (f"{TITLE}\n  0x7.0.ebx  01", "line 2"),
        (f"{TITLE}\nqemu 10.2.2\nchoose model\n", "has no TD"),
        (f"{TITLE}\n\n{SECTION}\n\n{SECTION.replace('host', 'max').partition('machines')[0]}", "neither machines"),
    ],
)
def test_an_error_names_the_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text, "baselines/x.txt")
    assert said in str(caught.value)
    assert "baselines/x.txt" in str(caught.value)
