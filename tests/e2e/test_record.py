"""`sim --record` and `replay`, with the real QEMU and with a VMM of a few lines that knows nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
TD = "tdx-guest,id=tdx0"
ORDINARY = """
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
assert fcntl.ioctl(kvm, 0xAE00, 0) == 12
vm = fcntl.ioctl(kvm, 0xAE01, 0)
fcntl.ioctl(vm, 0xAE41, 0)
td = fcntl.ioctl(kvm, 0xAE01, 5)
"""


def replay(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, "replay", str(file), *options], capture_output=True, text=True, check=False)


def replayed(file: Path, *options: str) -> dict[str, Any]:
    result = replay(file, "--format", "json", *options)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture(scope="module")
def talk(qemu: Path, firmware: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TD of two vCPUs, until QMP answers."""
    file = tmp_path_factory.mktemp("talk") / "talk.jsonl"
    command = [
        *PROGRAM, "sim", "--platform", "granite-rapids", "--record", str(file), "--", str(qemu), "-nodefaults",
        "-display", "none", "-accel", "kvm", "-object", TD, "-cpu", "host,-avx512f", "-smp", "2", "-m", "512M",
        "-machine", "q35,kernel-irqchip=split,confidential-guest-support=tdx0", "-bios", str(firmware), "-S",
        "-qmp", "stdio",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate('{"execute":"qmp_capabilities"}{"execute":"quit"}', timeout=PATIENCE)
    assert '"QMP"' in said
    return file


def test_replay_says_of_the_td_what_negotiate_says(talk: Path, qemu: Path, firmware: Path) -> None:
    """The TD that QEMU builds of its own is the one that `--choose model` negotiates."""
    command = [
        *PROGRAM, "negotiate", "--qemu", str(qemu), "--firmware", str(firmware), "--platform", "granite-rapids",
        "--cpu", "host,-avx512f", "--smp", "2", "--format", "json", "--fail-on", "none",
    ]  # fmt: skip
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    answer = replayed(talk)
    (td,) = answer["tds"]
    assert (td["vcpus"], td["finalised"], td["notes"]) == (2, True, [])
    assert (td["attributes"], td["xfam"]) == (report["choice"]["attributes"], report["choice"]["xfam"])

    def got(lines: list[dict[str, Any]]) -> dict[tuple[Any, ...], Any]:
        return {
            (line["leaf"], line.get("subleaf"), line["register"], line["low"]): (line["got"], line["chosen"])
            for line in lines
            if line["got"]
        }

    assert got(td["lines"]) == got(report["lines"])
    assert len(got(td["lines"])) > 150
    assert not [line for line in td["lines"] if line["cause"].startswith("not as module")]


def test_every_call_of_qemu_s_is_decoded(talk: Path) -> None:
    answer = replayed(talk)
    assert answer["head"]["platform"] == "granite-rapids"
    assert not [call for call in answer["calls"] if call["call"].startswith("ioctl 0x")]
    commands = [call["in"].get("command") for call in answer["calls"]]
    for command in ("CAPABILITIES", "INIT_VM", "GET_CPUID", "INIT_VCPU", "INIT_MEM_REGION", "FINALIZE_VM"):
        assert f"KVM_TDX_{command}" in commands
    assert "calls" in answer and replayed(talk, "--no-calls")["calls"] == []


def test_the_table_and_the_policy(talk: Path) -> None:
    result = replay(talk, "--fail-on", "forced-off")
    assert result.returncode == 1
    assert "KVM_TDX_INIT_VM" in result.stdout
    assert "vm-0: TD with 2 vCPUs, finalised" in result.stdout
    assert "module-rule: monitor" in result.stdout


def test_a_program_that_makes_ordinary_vms(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    subprocess.run([*PROGRAM, "sim", "--record", str(file), "--", sys.executable, "-c", ORDINARY], check=True)
    answer = replayed(file)
    assert [call["call"] for call in answer["calls"]] == [
        "open", "KVM_GET_API_VERSION", "KVM_CREATE_VM", "KVM_CREATE_VCPU", "KVM_CREATE_VM",
    ]  # fmt: skip
    assert answer["tds"] == [{"vm": "vm-1", "why": "KVM_TDX_INIT_VM was never called"}]


def test_a_conversation_that_was_cut_short_is_shown_as_far_as_it_goes(talk: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    text = talk.read_text()
    cut.write_text(text[: text.index("KVM_TDX_INIT_VM")])
    answer = replayed(cut)
    assert answer["cut"]
    assert answer["tds"] == [{"vm": "vm-0", "why": "KVM_TDX_INIT_VM was never called"}]
    assert "not whole" in replay(cut).stdout


@pytest.mark.parametrize("text", ["", "{}", '{"schema":"other/1","argv":[],"module":"","platform":"","interface":""}'])
def test_what_is_no_conversation_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text(text)
    result = replay(file)
    assert result.returncode == 2
    assert str(file) in result.stderr


def test_a_broken_line_is_named(talk: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text("\n".join([talk.read_text().splitlines()[0], "{", '{"n":1,"on":"x","call":"y"}']))
    assert "line 2 is not a call" in replay(file).stderr


def test_a_file_that_cannot_be_written_is_said_before_the_command_starts(tmp_path: Path) -> None:
    command = [*PROGRAM, "sim", "--record", str(tmp_path / "no" / "talk"), "--", "touch", str(tmp_path / "started")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--record" in result.stderr
    assert not (tmp_path / "started").exists()
