"""The QMP commands that the patches add, spoken to directly: no orchestrator in between."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.waiting import PATIENCE

WIDTH = {"leaf": 0x80000008, "eax": 48 << 16, "ebx": 0, "ecx": 0, "edx": 0}


class Refused(Exception):
    """QMP answered with an error; the text is its description."""


class Held:
    """A QEMU held in preconfig state on the simulated KVM."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process = process
        self._stream = connection.makefile("rw")
        self._stream.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, /, **arguments: Any) -> Any:
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._stream.write(json.dumps({"execute": command, "arguments": words}) + "\n")
        self._stream.flush()
        for line in self._stream:
            reply = json.loads(line)
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise Refused(reply["error"]["desc"])
        raise EOFError(command)


Start: TypeAlias = Callable[..., Held]


@pytest.fixture
def start(qemu: Path, firmware: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a TD held in preconfig state: ``start(cpu=..., smp=..., tdx_guest=...)``."""
    running: list[subprocess.Popen[bytes]] = []

    def start_one(cpu: str = "host", smp: str = "2", tdx_guest: str = "") -> Held:
        path = tmp_path / f"qmp{len(running)}"
        machine = "q35,kernel-irqchip=split,confidential-guest-support=tdx0"
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "plugin.kvm.command",
            "--",
            qemu,
            "-accel",
            "kvm",
            "-machine",
            machine,
        ]
        command += ["-object", f"tdx-guest,id=tdx0{tdx_guest}", "-cpu", cpu, "-smp", smp, "-m", "256"]
        command += ["-bios", firmware, "-nodefaults", "-display", "none", "-S", "-preconfig", "-qmp", f"unix:{path}"]
        with socket.socket(socket.AF_UNIX) as listener, (tmp_path / "stderr").open("wb") as stderr:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(PATIENCE)
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr))
            connection, _ = listener.accept()
        return Held(running[-1], connection)

    yield start_one
    for process in running:
        process.terminate()
        process.wait(PATIENCE)


def stderr_of(tmp_path: Path) -> str:
    return (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("cpu", "smp"),
    [
        ("host", "1"),
        ("host", "2"),
        ("host", "4,sockets=2,cores=2,threads=1"),
        ("host", "8,sockets=2,dies=2,cores=1,threads=2"),
        ("host,-waitpkg,-avx512f,pmu=on", "2,maxcpus=4"),
        ("host,+sgx,+vmx", "1,cores=3,maxcpus=3"),
    ],
)
def test_what_will_be_requested_is_what_was(start: Start, cpu: str, smp: str) -> None:
    td = start(cpu=cpu, smp=smp)
    count = int(smp.partition(",")[0])
    before = [td("x-query-tdx-requested-cpuid", cpu_index=index) for index in range(count)]
    assert [td("x-query-tdx-requested-cpuid", cpu_index=index) for index in range(count)] == before
    td("x-exit-preconfig")
    assert [td("x-query-tdx-requested-cpuid", cpu_index=index) for index in range(count)] == before


def test_asking_in_preconfig_state_warns_of_nothing(start: Start, tmp_path: Path) -> None:
    td = start(cpu="host,+vmx")
    td("x-query-tdx-requested-cpuid")
    assert stderr_of(tmp_path) == ""
    td("x-exit-preconfig")
    assert "vmx" in stderr_of(tmp_path)


def test_a_feature_that_qemu_drops_is_told(start: Start) -> None:
    reply = start(cpu="host,+vmx")("x-query-tdx-requested-cpuid")
    assert {"leaf": 1, "eax": 0, "ebx": 0, "ecx": 1 << 5, "edx": 0} in reply["dropped"]
    [features] = [entry for entry in reply["cpuid"] if entry["leaf"] == 1]
    assert not features["ecx"] & 1 << 5


@pytest.mark.parametrize(
    ("cpu", "why"),
    [
        ("SapphireRapids", "Named cpu model is not supported"),
        ("host,nosuch=on", "nosuch"),
        ("host,-nosuch", "nosuch"),
        ("host,phys-bits=abc", "phys-bits"),
    ],
)
def test_a_model_that_cannot_be_is_an_error_and_not_the_end(start: Start, cpu: str, why: str) -> None:
    td = start(cpu=cpu)
    with pytest.raises(Refused, match=why):
        td("x-query-tdx-requested-cpuid")
    assert td("query-status")["status"] == "prelaunch"


def test_a_named_model_is_told_once_it_is_allowed(start: Start) -> None:
    td = start(cpu="SapphireRapids,host-phys-bits=on", tdx_guest=",x-named-cpu-models=on")
    [version] = [entry for entry in td("x-query-tdx-requested-cpuid")["cpuid"] if entry["leaf"] == 1]
    assert version["eax"] == 0x806F4


def test_choices_are_taken_exactly(start: Start) -> None:
    """Everything configurable off; what the TD has then comes from nobody's -cpu."""
    td = start(cpu="host")
    bmi1 = 1 << 3
    configurable = {(e["leaf"], e.get("subleaf", 0)): e for e in td("x-query-tdx-config-cpuid")["cpuid"]}
    assert configurable[7, 0]["ebx"] & bmi1
    td("x-tdx-set-cpuid-choices", cpuid=[{**configurable[7, 0]}, WIDTH])
    td("x-tdx-set-cpuid-choices", cpuid=[WIDTH])
    td("x-exit-preconfig")
    [leaf] = td("x-query-tdx-vcpu-cpuid", cpu_index=1, leaves=[{"leaf": 7, "subleaf": 0}])["cpuid"]
    assert not leaf["ebx"] & bmi1


def entry(leaf: int, subleaf: int | None = None, **registers: int) -> dict[str, int]:
    place = {"leaf": leaf} if subleaf is None else {"leaf": leaf, "subleaf": subleaf}
    return {**place, "eax": 0, "ebx": 0, "ecx": 0, "edx": 0, **registers}


@pytest.mark.parametrize(
    ("cpuid", "why"),
    [
        ([WIDTH, entry(7, 0, ebx=1 << 0)], "CPUID leaf 0x7 sub-leaf 0 EBX bit 0 is not configurable"),
        ([WIDTH, entry(9)], "CPUID leaf 0x9 is not configurable"),
        ([WIDTH, entry(7, 99)], "CPUID leaf 0x7 sub-leaf 99 is not configurable"),
        ([WIDTH, entry(7, 0), entry(7)], "CPUID leaf 0x7 sub-leaf 0 is given twice"),
        ([], "must be 48 or 52, not 0"),
        ([entry(0x80000008, eax=47 << 16)], "must be 48 or 52, not 47"),
    ],
)
def test_a_choice_that_cannot_be_is_named(start: Start, cpuid: list[dict[str, int]], why: str) -> None:
    td = start()
    with pytest.raises(Refused, match=why):
        td("x-tdx-set-cpuid-choices", cpuid=cpuid)


def test_unsupported_attribute_and_xfam_bits_are_named(start: Start) -> None:
    td = start()
    with pytest.raises(Refused, match="TD attribute bit 0 is not supported"):
        td("x-tdx-set-cpuid-choices", cpuid=[WIDTH], attributes=1)
    with pytest.raises(Refused, match="XFAM bit 63 is not supported"):
        td("x-tdx-set-cpuid-choices", cpuid=[WIDTH], xfam=1 << 63)


def test_it_is_too_late_for_choices_once_the_machine_is_there(start: Start) -> None:
    td = start()
    td("x-exit-preconfig")
    with pytest.raises(Refused, match="before machine initialization"):
        td("x-tdx-set-cpuid-choices", cpuid=[WIDTH])


def test_a_finalised_td_still_tells_its_cpuid(start: Start) -> None:
    td = start(smp="2")
    td("x-exit-preconfig")
    first, second = (td("x-query-tdx-vcpu-cpuid", cpu_index=index) for index in (0, 1))
    assert [first["cpu-index"], second["cpu-index"]] == [0, 1]
    assert {entry["leaf"] for entry in first["cpuid"]} >= {0, 1, 7, 0xD, 0x80000000, 0x80000008}
    some = td("x-query-tdx-vcpu-cpuid", cpu_index=0, leaves=[{"leaf": 7}, {"leaf": 0x7FFFFFFF}])["cpuid"]
    assert some == [entry for entry in first["cpuid"] if entry["leaf"] == 7]
    with pytest.raises(Refused, match="vCPU 2 does not exist"):
        td("x-query-tdx-vcpu-cpuid", cpu_index=2)


def test_hot_plugging_a_vcpu_is_refused(start: Start) -> None:
    td = start(cpu="host", smp="1,maxcpus=2")
    td("x-exit-preconfig")
    [free] = [slot for slot in td("query-hotpluggable-cpus") if "qom-path" not in slot]
    with pytest.raises(Refused, match="TDX does not support vCPU hotplug"):
        td("device_add", driver=free["type"], id="late", **free["props"])
    assert td("query-status")["status"] == "prelaunch"
