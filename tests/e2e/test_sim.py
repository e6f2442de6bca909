"""`tdx-cpuid sim` with the real QEMU: a finalised TD and a running monitor, for as long as somebody wants it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.release import release
from tests.waiting import PATIENCE, gone, until

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]


class Monitor:
    """A QMP connection, reading one line after another."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._events: set[str] = set()
        until(lambda: self._connected(path), "QEMU has opened its monitor")
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self.execute("qmp_capabilities")

    def _connected(self, path: Path) -> bool:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            self._socket.connect(str(path))
            return True
        return False

    def execute(self, command: str, **arguments: object) -> Any:
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        self._socket.sendall(json.dumps(request).encode())
        for line in self._lines:
            answer = json.loads(line)
            if "event" not in answer:
                return answer.get("return", answer)
            self._events.add(answer["event"])
        raise AssertionError(f"QEMU hung up during {command}")

    def wait_for(self, event: str) -> None:
        """Read until an event has come, which may be before the answer to the command that it follows from."""
        while event not in self._events:
            self._events.add(json.loads(self._lines.readline()).get("event"))

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Guest:
    """A QEMU under the simulation, with its monitor on a socket in a folder of its own."""

    def __init__(self, qemu: Path, firmware: Path, folder: Path, *options: str, td: bool) -> None:
        self.socket = folder / "qmp"
        machine = "q35,kernel-irqchip=split"
        if td:
            options = ("-object", "tdx-guest,id=tdx0", *options)
            machine += ",confidential-guest-support=tdx0"
        self.process = subprocess.Popen(
            [*PROGRAM, "sim", "--", str(qemu), "-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm",
             "-machine", machine, "-cpu", "host", "-m", "512M",
             "-bios", str(firmware), "-qmp", f"unix:{self.socket},server=on,wait=off", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def qemu_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def end(self) -> tuple[int, str]:
        """Wait for the command to end; its status and what it said."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@contextmanager
def guest(qemu: Path, firmware: Path, folder: Path, *options: str, td: bool = True) -> Iterator[Guest]:
    running = Guest(qemu, firmware, folder, *options, td=td)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("is_td", [True, False], ids=["td", "ordinary"])
@pytest.mark.parametrize("vcpus", [1, 2, 64])
def test_a_guest_runs_stops_and_goes_on(qemu: Path, firmware: Path, tmp_path: Path, vcpus: int, is_td: bool) -> None:
    with guest(qemu, firmware, tmp_path, "-smp", str(vcpus), td=is_td) as td:
        monitor = Monitor(td.socket)
        assert monitor.execute("query-status")["status"] == "running"
        assert len(monitor.execute("query-cpus-fast")) == vcpus
        assert monitor.execute("stop") == {}
        assert monitor.execute("query-status")["status"] == "paused"
        assert monitor.execute("cont") == {}
        assert monitor.execute("query-status")["status"] == "running"
        monitor.execute("quit")
        monitor.close()
        status, said = td.end()
        assert status == 0, said
        assert "not simulated" not in said, "QEMU asked for an ioctl that the simulation lacks"


def test_a_reset_ends_as_qemu_wants_it(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    """QEMU 10 cannot reset a TD and shuts down; since 11.0 it builds the TD once more, with the same CPUID."""
    with guest(qemu, firmware, tmp_path, "-smp", "2") as td:
        monitor = Monitor(td.socket)
        before = seen(monitor)
        monitor.execute("system_reset")
        if release(qemu) >= (11, 0):
            monitor.wait_for("RESET")
            assert seen(monitor) == before
            monitor.execute("quit")
        status, said = td.end()
        monitor.close()
        assert status in (0, 1), said


def seen(monitor: Monitor) -> list[Any]:
    """What the project's commands tell of both vCPUs."""
    commands = ("x-query-tdx-requested-cpuid", "x-query-tdx-vcpu-cpuid")
    answers = [monitor.execute(command, **{"cpu-index": vcpu}) for command in commands for vcpu in (0, 1)]
    assert all(answer["cpuid"] for answer in answers)
    return answers


def test_attaching_only_reads(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    with guest(qemu, firmware, tmp_path, "-smp", "2") as td:
        Monitor(td.socket).close()
        command = [*PROGRAM, "negotiate", "--qmp", str(td.socket), "--format", "json", "--fail-on", "none"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["vcpus"] == 2
        assert any("inferred" in line["cause"] for line in report["lines"]), "no tables, no certainty"
        monitor = Monitor(td.socket)
        assert monitor.execute("query-status")["status"] == "running", "the TD was left as it was"
        monitor.close()


def test_a_monitor_that_is_in_use(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    with guest(qemu, firmware, tmp_path, "-smp", "1") as td:
        monitor = Monitor(td.socket)
        command = [*PROGRAM, "negotiate", "--qmp", str(td.socket), "--timeout", "1"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert result.returncode == 4
        assert "is another program connected" in result.stderr
        monitor.close()


def test_no_monitor_there(tmp_path: Path) -> None:
    command = [*PROGRAM, "negotiate", "--qmp", str(tmp_path / "absent")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 4
    assert "absent" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("victim", ["qemu", "supervisor"])
def test_killing_either_side_leaves_no_process(qemu: Path, firmware: Path, tmp_path: Path, victim: str) -> None:
    with guest(qemu, firmware, tmp_path, "-smp", "2") as td:
        Monitor(td.socket).close()
        pid = td.qemu_pid()
        os.kill(pid if victim == "qemu" else td.process.pid, signal.SIGKILL)
        status, _ = td.end()
        assert status == (128 + signal.SIGKILL if victim == "qemu" else -signal.SIGKILL)
        assert gone(pid)
