"""`tdx-cpuid negotiate -- QEMU...` with the real QEMU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry", "negotiate", "--platform", "emerald-rapids"]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=cwd)


def test_an_ordinary_guest_s_command_line(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    """With a disk, a NIC, a display, a monitor and a QMP server of its own, none of which may hold it up."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    result = run(
        "--firmware", str(firmware), "--format", "json", "--fail-on", "none", "--",
        str(qemu), "-M", "q35", "-cpu", "host,-avx512f", "-smp", "2", "-m", "256M", "-vga", "none",
        "-drive", "file=disk.img,if=virtio,format=raw", "-qmp", "unix:own.qmp,server=on", "-monitor", "stdio",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["vcpus"] == 2
    assert report["request"]["cpu"] == "host,-avx512f"
    assert {line["verdict"] for line in report["lines"] if line["name"] == "avx512f"} == {"honoured"}
    notes = "\n".join(report["notes"])
    assert "added to your command line: -object tdx-guest,id=tdx-cpuid" in notes
    assert "changed in your command line: -qmp unix:own.qmp,server=on,wait=off" in notes


def test_both_interfaces_say_what_was_added(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    result = run(
        "--firmware", str(firmware), "--kvm", "both", "--format", "json", "--fail-on", "none", "--", str(qemu), "-M",
        "q35", "-vga", "none",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    both = json.loads(result.stdout)
    for interface in ("upstream", "proposal"):
        assert "added to your command line: -object tdx-guest,id=tdx-cpuid" in "\n".join(both[interface]["notes"])


def test_a_td_s_command_line_gives_the_same_report_as_the_options(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    own = run(
        "--format", "json", "--fail-on", "none", "--", str(qemu), "-accel", "kvm", "-cpu", "SapphireRapids", "-object",
        "tdx-guest,id=td", "-machine", "q35,kernel-irqchip=split,confidential-guest-support=td", "-bios",
        str(firmware), "-nodefaults", "-m", "512M", "-display", "none",
        cwd=tmp_path,
    )  # fmt: skip
    options = run(
        "--qemu", str(qemu), "--firmware", str(firmware), "--cpu", "SapphireRapids", "--format", "json", "--fail-on",
        "none", cwd=tmp_path,
    )  # fmt: skip
    assert own.returncode == 0, own.stderr
    ours, theirs = json.loads(own.stdout), json.loads(options.stdout)
    assert ours["lines"] == theirs["lines"]
    assert ours["choice"] == theirs["choice"]


def test_options_that_the_command_line_says_are_refused_beside_it(tmp_path: Path) -> None:
    result = run("--cpu", "host", "--", "qemu-system-x86_64", cwd=tmp_path)
    assert result.returncode == 2
    assert "--cpu stands beside a command line of your own" in result.stderr


def test_what_cannot_be_negotiated_with_is_said_before_anything_starts(qemu: Path, tmp_path: Path) -> None:
    result = run("--", str(qemu), "-daemonize", "-pidfile", "own.pid", cwd=tmp_path)
    assert result.returncode == 2
    assert "-daemonize puts QEMU out of reach" in result.stderr
    assert not (tmp_path / "own.pid").exists()
