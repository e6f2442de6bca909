"""A real TD's dump against the prediction, and dumps that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS, Leaf, Register
from plugin.cpuid.fields import fields_of
from plugin.cpuid.linux import CLEARED, EXACT, linux_flags
from qmp_client.cli.program import run
from qmp_client.names import a_guest, a_host
from qmp_client.negotiation.wish import Wish
from qmp_client.observed.compare import Result, compare
from qmp_client.observed.dump import Dump, NoDump, read
from qmp_client.observed.show import causes_of, predicted_by
from qmp_client.predict.predict import predict
from qmp_client.report.model import Report
from tests.observed.emerald_rapids_td import CPUINFO, FLAGS

HERE = ("--module", "1.5.05", "--platform", "emerald-rapids")


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    return path


def check(capfd: pytest.CaptureFixture[str], *words: str, status: int) -> dict[str, dict[str, str]]:
    """Run the command and return its findings by name."""
    assert run(["check-guest", *words, "--format", "json"]) == status
    return {one["name"]: one for one in json.loads(capfd.readouterr().out)["findings"]}


def named(findings: dict[str, dict[str, str]], result: Result) -> set[str]:
    return {name for name, one in findings.items() if one["result"] == result}


class TestARealTd:
    def test_nothing_contradicts_but_what_linux_clears(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        findings = check(capfd, str(cpuinfo), *HERE, status=0)
        assert named(findings, Result.CONTRADICTS) == set()
        assert named(findings, Result.EXPLAINED) == {"mce", "mtrr"}
        assert all("Linux switches" in findings[name]["why"] for name in ("mce", "mtrr"))
        assert named(findings, Result.OTHER_CHOICE) == {"ht", "tm", "sdbg", "hle", "rtm", "waitpkg", "ibt"}

    @pytest.mark.parametrize("before", ["", "flags\t\t: "])
    def test_its_flags_alone_will_do(self, before: str) -> None:
        assert read(f"{before}{FLAGS}\n").flags == frozenset(FLAGS.split())

    def test_synthetic_words_are_no_evidence(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        findings = check(capfd, str(cpuinfo), *HERE, status=0)
        assert {"tdx_guest", "arch_perfmon", "tsc_reliable", "ospke"} <= named(findings, Result.NO_EVIDENCE)

    def test_on_a_newer_module_it_cannot_have_run(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Its kernel would have reduced #VE: no MCA, no TSC deadline, another model name."""
        findings = check(capfd, str(cpuinfo), "--module", "1.5.34", "--platform", "emerald-rapids", status=1)
        assert named(findings, Result.CONTRADICTS) == {"mca", "tsc_deadline_timer", "model name"}

    def test_unless_its_kernel_was_older(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        where = ("--module", "1.5.34", "--platform", "emerald-rapids", "--guest", "linux-6.6")
        assert named(check(capfd, str(cpuinfo), *where, status=0), Result.EXPLAINED) == {"mce", "mtrr"}

    def test_with_a_cpu_option_the_choice_is_known(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        findings = check(capfd, str(cpuinfo), *HERE, "--cpu", "host,-avx512f", status=1)
        assert {"avx512f", "hle", "rtm"} <= named(findings, Result.CONTRADICTS)

    def test_the_table_says_it(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert run(["check-guest", str(cpuinfo), *HERE]) == 0
        out = capfd.readouterr().out
        assert "0 contradict, 2 differ for a known reason, 7 are another choice of the VMM" in out
        assert "Linux switches machine checks off in every TD" in out


RAW = """\
CPU:
   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69
   0x00000001 0x00: eax=0x000c06f2 ebx=0x00000800 ecx=0x80000000 edx=0x00000001
   0x80000000 0x00: eax=0x80000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000
"""


class TestNoDump:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "is no /proc/cpuinfo, no line of its flags, and nothing that cpuid -r prints"),
            ("hello\n", "is no /proc/cpuinfo"),
            ("\x00\xff\x7fELF", "is no /proc/cpuinfo"),
            (CPUINFO.replace("GenuineIntel", "AuthenticAMD"), "is of a AuthenticAMD processor"),
            (CPUINFO[: CPUINFO.index("lm ")], "is cut off: what /proc/cpuinfo says of a processor ends with"),
            (RAW.replace("eax=0x00000001 ebx=0x75", "eax=0x00000020 ebx=0x75"), "it ends before leaf 0x20"),
            (RAW[: RAW.index("   0x80000000")], "it ends before leaf 0x80000000"),
            (RAW[:-20], "is cut off or damaged in line 4"),
            (RAW.replace("ebx=0x756e6547", "ebx=0x68747541"), "processor; a TD is one of GenuineIntel"),
        ],
    )
    def test_is_a_sentence(self, text: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "dump"
        path.write_text(text)
        assert run(["check-guest", str(path), *HERE]) == 2
        out, err = capfd.readouterr()
        assert not out
        assert said in err
        assert str(path) in err

    def test_a_file_that_is_not_there(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert run(["check-guest", str(tmp_path / "nothing")]) == 2
        assert "cannot be read: No such file" in capfd.readouterr().err

    def test_an_unknown_guest(self, cpuinfo: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert run(["check-guest", str(cpuinfo), "--guest", "linx"]) == 2
        err = capfd.readouterr().err
        assert "no guest and no control of a guest is called 'linx'" in err
        assert "did you mean linux" in err

    @given(st.text())
    @settings(max_examples=200)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            assert isinstance(read(text), Dump)
        except NoDump as error:
            assert str(error)


@pytest.fixture(scope="module")
def report() -> Report:
    return predict("host", "1", Wish(), a_host("2.0.18", "granite-rapids"), a_guest("linux"))


def raw(report: Report) -> str:
    """What ``cpuid -1 -r`` would print in that guest."""
    lines = ["CPU:"]
    for one in report.guest:
        words = zip(("eax", "ebx", "ecx", "edx"), (one.eax, one.ebx, one.ecx, one.edx), strict=True)
        said = " ".join(f"{name}=0x{value or 0:08x}" for name, value in words)
        lines.append(f"   0x{one.leaf:08x} 0x{one.subleaf or 0:02x}: {said}")
    return "\n".join(lines) + "\n"


class TestRegisters:
    def test_what_was_predicted_agrees_with_itself(self, report: Report) -> None:
        findings = compare(read(raw(report)), predicted_by(report), causes_of(report))
        assert {finding.result for finding in findings} == {Result.AGREES}
        assert sum(finding.result is Result.AGREES for finding in findings) > 150

    def test_a_second_processor_is_passed_over(self, report: Report) -> None:
        text = raw(report)
        both = text.replace("CPU:", "CPU 0:") + text.replace("CPU:", "CPU 1:").replace("eax=0x0", "eax=0x1")
        assert read(both) == read(text)

    @given(data=st.data())
    @settings(max_examples=60)
    def test_a_flipped_bit_is_found_where_it_is(self, data: st.DataObject, report: Report) -> None:
        dump = read(raw(report))
        last = dump.cpuid[0, 0].eax
        places = [place for place in dump.cpuid if place[0] != 0 and place[0] <= last]
        place = data.draw(st.sampled_from(sorted(places)))
        register: Register = data.draw(st.sampled_from(REGISTERS))
        bit = data.draw(st.integers(0, 31))
        before = dump.cpuid[place]
        flipped = before.with_(register, before.get(register) ^ 1 << bit)
        changed = dump._replace(cpuid={**dump.cpuid, place: flipped})
        findings = compare(changed, predicted_by(report), causes_of(report))
        wrong = [finding for finding in findings if finding.result is Result.CONTRADICTS]
        assert len(wrong) <= 1
        for finding in wrong:
            assert finding.where.startswith(f"{place[0]:#x}")
            assert f".{register}[" in finding.where
        if not wrong:
            assert any(
                field.dynamic and field.register == register and field.low <= bit <= field.high
                for leaf in (one for one in predicted_leaves(report) if (one.number, one.subleaf or 0) == place)
                for field in fields_of(leaf)
            )


def predicted_leaves(report: Report) -> list[Leaf]:
    return [Leaf(one.leaf, one.subleaf) for one in report.guest]


class TestLinuxFlags:
    def test_every_word_of_the_dump_is_known(self) -> None:
        assert set(FLAGS.split()) <= linux_flags().keys()

    def test_what_linux_clears_in_every_td(self) -> None:
        assert {name for name, flag in linux_flags().items() if flag.evidence == CLEARED} == {"mce", "mtrr"}

    def test_exactly_one_word_stands_for_a_bit_exactly(self) -> None:
        exact = [flag for flag in linux_flags().values() if flag.evidence == EXACT]
        assert all(flag.bit is not None for flag in exact)
        bits = [flag.bit for flag in exact if flag.name != "nonstop_tsc"]
        assert len(bits) == len(set(bits))

    def test_a_word_that_says_less_says_why(self) -> None:
        for flag in linux_flags().values():
            assert flag.evidence == EXACT or flag.note or flag.bit is not None, flag.name
