"""Faults under the real QEMU: the tool names each one for what it is, with the exit status that belongs to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.negotiating import Negotiate

INTERFACES = ["upstream", "proposal"]


@pytest.fixture(scope="session")
def negotiate(qemu: Path, firmware: Path) -> Negotiate:
    return Negotiate(qemu, firmware)


@pytest.mark.parametrize("interface", INTERFACES)
def test_entropy_that_comes_back_is_a_note(negotiate: Negotiate, interface: str) -> None:
    report = negotiate.report("--kvm", interface, "--fault", "entropy=3")
    (note,) = [note for note in report["notes"] if "refused" in note]
    assert "3 times" in note
    assert "entropy" in note.lower()
    assert any("entropy=3" in caveat for caveat in report["environment"]["caveats"])


def test_entropy_that_does_not_come_back_ends_qemu_after_its_retries(negotiate: Negotiate) -> None:
    result = negotiate("--fault", "entropy", "--timeout", "500")  # 10,000 calls take a busy machine a minute
    assert result.returncode == 4
    assert "RND_NO_ENTROPY" in result.stderr
    assert "10000 times in a row" in result.stderr


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("init-vm=CPUID_CONFIG:0x7.0", ("OPERAND_INVALID(CPUID_CONFIG)", "leaf 0x7.0")),
        ("init-vm=XFAM", ("OPERAND_INVALID(XFAM)",)),
        ("init-vm=ATTRIBUTES", ("OPERAND_INVALID(ATTRIBUTES)",)),
        ("init-vm=TSC_FREQUENCY", ("OPERAND_INVALID(TSC_FREQUENCY)",)),
        ("init-vm=CPUID_LEAF_1F_FORMAT_UNRECOGNIZED", ("CPUID_LEAF_1F_FORMAT_UNRECOGNIZED", "EIO")),
    ],
)
def test_what_the_module_refuses_is_named(
    negotiate: Negotiate, interface: str, fault: str, said: tuple[str, ...]
) -> None:
    result = negotiate("--kvm", interface, "--fault", fault)
    assert result.returncode == 4
    for words in said:
        assert words in result.stderr
    assert "KVM said" in result.stderr
    assert "Traceback" not in result.stderr


def test_kvms_own_sentence_is_quoted_without_any_fault(negotiate: Negotiate, tmp_path: Path) -> None:
    """A family and model that the module does not let a TD have."""
    choice = tmp_path / "choice.json"
    choice.write_text('{"cpuid": [{"leaf": "0x80000008", "eax": "0x300000"}, {"leaf": 1, "eax": "0x806f4"}]}')
    result = negotiate("--choose", str(choice))
    assert result.returncode == 4
    assert "KVM said EINVAL: KVM_TDX_INIT_VM: TDH.MNG.INIT: OPERAND_INVALID(CPUID_CONFIG)" in result.stderr


@pytest.mark.parametrize("interface", INTERFACES)
def test_leaves_that_get_lost_are_unreadable_not_absent(negotiate: Negotiate, interface: str) -> None:
    """vCPU 0 lacks the last leaf, vCPU 1 the last two."""
    report = negotiate.report("--kvm", interface, "--smp", "2", "--fault", "get-cpuid-shrinks")
    unreadable = [line for line in report["lines"] if line["verdict"] == "unreadable"]
    of_first = {line["leaf"] for line in unreadable if line.get("vcpu") is None}
    of_second = {line["leaf"] for line in unreadable if line.get("vcpu") == 1}
    assert of_first == {0x80000008}
    assert {line["cause"] for line in unreadable if line.get("vcpu") is None} == {"KVM did not return the leaf"}
    assert of_second == {0x80000007}
    assert negotiate("--fault", "get-cpuid-shrinks", "--fail-on", "unreadable").returncode == 1


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_vcpu_that_differs_is_named(negotiate: Negotiate, interface: str) -> None:
    report = negotiate.report("--kvm", interface, "--smp", "3", "--fault", "vcpu-differs=1:0x7.0.ebx[5]")
    differing = [line for line in report["lines"] if line.get("vcpu") is not None]
    (line,) = differing
    assert (line["vcpu"], line["name"], line["cause"], line["got"]) == (1, "avx2", "vcpu-differs", 0)


def test_faults_add_up(negotiate: Negotiate) -> None:
    report = negotiate.report("--smp", "2", "--fault", "entropy=1", "--fault", "vcpu-differs=0:0x7.0.ebx[5]")
    assert any("once" in note for note in report["notes"])
    (line,) = [line for line in report["lines"] if line["name"] == "avx2" and line.get("vcpu") is None]
    assert line["cause"].startswith("not as module"), "the tables know better than vCPU 0"


def test_a_module_update_between_two_runs_is_named(negotiate: Negotiate, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    saved.write_text(negotiate("--module", "1.5.01", "--format", "json").stdout)
    same = negotiate("--module", "1.5.01", "--expect", str(saved))
    assert same.returncode == 0, same.stdout
    assert "since the expected report" not in same.stdout
    updated = negotiate("--module", "1.5.05", "--expect", str(saved))
    assert updated.returncode == 1
    assert "TDX module 1.5.01 -> 1.5.05" in updated.stdout
    assert "new: " in updated.stdout


@pytest.mark.parametrize("fault", ["entropi", "init-vm=TDCS", "vcpu-differs=1", "entropy=0"])
def test_a_wrong_specification_is_usage(negotiate: Negotiate, fault: str) -> None:
    result = negotiate("--fault", fault)
    assert result.returncode == 2
    assert f"--fault {fault}" in result.stderr
