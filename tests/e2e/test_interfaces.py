"""KVM's two interfaces under the real QEMU: `--kvm`, and what a user gains or loses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.negotiating import Negotiate, lines
from tests.waiting import PATIENCE

PARAVIRTUAL = range(0x40000000, 0x50000000)


@pytest.fixture(scope="session")
def negotiate(qemu: Path, firmware: Path) -> Negotiate:
    return Negotiate(qemu, firmware)


def test_qemu_finds_the_proposal_and_says_so(negotiate: Negotiate) -> None:
    assert negotiate.report("--kvm", "proposal")["environment"]["interface"] == "proposal"
    assert negotiate.report("--kvm", "upstream")["environment"]["interface"] == "upstream"
    assert negotiate.report()["environment"]["interface"] == "upstream"


def test_what_kvm_does_not_know_is_forced_on(negotiate: Negotiate) -> None:
    """HT on a TD with one vCPU: nobody can choose it any more."""
    (line,) = lines(negotiate.report("--kvm", "proposal", "--cpu", "host,-ht"), "ht")
    assert (line["asked"], line["chosen"], line["got"]) == (0, None, 1)
    assert (line["verdict"], line["cause"]) == ("forced-on", "kvm-unknown")
    (line,) = lines(negotiate.report("--kvm", "upstream", "--cpu", "host,-ht"), "ht")
    assert (line["chosen"], line["got"], line["cause"]) == (0, 0, "configured")


def test_what_kvm_must_not_let_a_td_have_stays_off(negotiate: Negotiate) -> None:
    (line,) = lines(negotiate.report("--kvm", "proposal", "--cpu", "host,-waitpkg"), "waitpkg")
    assert (line["got"], line["cause"]) == (0, "kvm-filtered")


@pytest.mark.parametrize("vcpus", ["1", "3"])
def test_every_leaf_is_read_back_through_either_interface(negotiate: Negotiate, vcpus: str) -> None:
    both = negotiate.report("--kvm", "both", "--smp", vcpus)
    up, proposal = ({(e["leaf"], e.get("subleaf")) for e in both[side]["actual"]} for side in ("upstream", "proposal"))
    assert proposal >= up
    assert both["upstream"]["vcpus"] == both["proposal"]["vcpus"] == int(vcpus)


def test_both_tells_what_a_user_gains_and_loses(negotiate: Negotiate) -> None:
    both = negotiate.report("--kvm", "both")
    assert both["schema"] == "tdx-cpuid/interfaces/1"
    changes = both["changes"]
    assert {change["effect"] for change in changes} >= {"kvm-unknown", "by-hypercall", "agreed"}
    gone = {change["leaf"] for change in changes if change["effect"] == "by-hypercall"}
    assert {0x40000000, 0x40000001} <= gone
    ht = next(change for change in changes if change["name"] == "ht")
    assert ht["upstream"] == {"chosen": 0, "got": 0, "kvm": 0}
    assert ht["proposal"] == {"chosen": None, "got": 1, "kvm": 1}
    hidden = [change for change in changes if change["effect"] == "kvm-unknown"]
    assert both["summary"]["kvm-unknown"] == len(hidden)
    assert not [change for change in changes if change["effect"] == "altered"], "KVM's list is all that differs"


def test_with_the_proposal_kvm_believes_what_the_td_has(negotiate: Negotiate) -> None:
    report = negotiate.report("--kvm", "proposal", "--smp", "2")
    assert report["kvm-copy"] == report["actual"]


def test_both_as_a_table(negotiate: Negotiate) -> None:
    result = negotiate("--kvm", "both")
    assert result.returncode == 0, "neither report fails the default policy"
    for word in ("KVM sets it to 1", "lost with the proposal", "gained", "by-hypercall"):
        assert word in result.stdout
    assert negotiate("--kvm", "both", "--fail-on", "none").returncode == 0


def test_an_interface_that_cannot_build_the_td_is_named(negotiate: Negotiate) -> None:
    """Module 1.0 has no slot for leaf 0x80000008, without which upstream KVM builds no TD."""
    result = negotiate("--kvm", "both", "--module", "1.0")
    assert result.returncode == 2
    assert "upstream interface" in result.stderr
    assert "--kvm proposal builds the TD" in result.stderr
    assert negotiate("--kvm", "proposal", "--module", "1.0", "--fail-on", "none").returncode == 0


@pytest.mark.parametrize(
    ("module", "platform"),
    [("1.0.3", "sapphire-rapids"), ("1.5.01", "emerald-rapids"), ("1.5.05", "granite-rapids")],
)
def test_the_tables_explain_every_bit(negotiate: Negotiate, module: str, platform: str) -> None:
    report = negotiate.report("--kvm", "proposal", "--module", module, "--platform", platform)
    assert not [line for line in report["lines"] if line["cause"].startswith("not as module")]
    assert not [line for line in report["lines"] if line["verdict"] == "unreadable"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kvm", "both", "--expect", "REPORT"], "--expect holds one report"),
        (["--kvm", "downstream"], "downstream"),
        (["--hardware", "--kvm", "proposal"], "--hardware"),
        (["--hardware", "--fault", "entropy"], "--hardware"),
        (["--qmp", "REPORT", "--kvm", "proposal"], "runs already"),
    ],
)
def test_options_that_do_not_go_together(negotiate: Negotiate, options: list[str], said: str, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    saved.write_text(negotiate("--format", "json").stdout)
    result = negotiate(*(str(saved) if word == "REPORT" else word for word in options))
    assert result.returncode == 2
    assert said in result.stderr


def test_the_users_own_command_line_goes_through_both(negotiate: Negotiate, qemu: Path) -> None:
    machine = "q35,kernel-irqchip=split,confidential-guest-support=tdx0"
    own = [str(qemu), "-machine", machine, "-object", "tdx-guest,id=tdx0", "-accel", "kvm", "-cpu", "host", "-smp", "2"]
    command = [sys.executable, "-m", "qmp_client.cli.entry", "negotiate", "--kvm", "both", "--fail-on", "none"]
    command += ["--format", "json", "--", *own]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["proposal"]["vcpus"] == 2


def test_a_leaf_that_nobody_thinks_of_is_found(negotiate: Negotiate) -> None:
    """The proposal's KVM tells only what it is asked: QEMU asks for every leaf that can be read."""
    report = negotiate.report("--kvm", "proposal", "--module", "future")
    assert any("leaf 0x26" in note for note in report["notes"])
    assert 0x26 in {entry["leaf"] for entry in report["actual"]}


def test_a_td_of_the_proposal_runs(qemu: Path, firmware: Path) -> None:
    """Not only negotiated: finalised, started, stopped."""
    machine = "q35,kernel-irqchip=split,confidential-guest-support=tdx0"
    command = [sys.executable, "-m", "qmp_client.cli.entry", "sim", "--kvm", "proposal", "--", str(qemu)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-machine", machine]
    command += ["-object", "tdx-guest,id=tdx0", "-cpu", "host", "-smp", "2", "-m", "512M", "-bios", str(firmware)]
    said = "".join(f'{{"execute": "{word}"}}' for word in ("qmp_capabilities", "query-status", "stop", "cont", "quit"))
    result = subprocess.run(
        [*command, "-qmp", "stdio"], input=said, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"return": {"status": "running", "running": True}} in answers
    assert "not simulated" not in result.stderr


def test_sim_takes_the_same_words(qemu: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "qmp_client.cli.entry",
        "sim",
        "--kvm",
        "proposal",
        "--fault",
        "x",
        "--",
        str(qemu),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 2
    assert "--fault x" in result.stderr
