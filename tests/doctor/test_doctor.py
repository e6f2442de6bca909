"""`tdx-cpuid doctor` on machines that have it all, and on ones that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qmp_client.doctor import checks
from qmp_client.doctor.finding import Finding, Standing, diagnose

DOCTOR = [sys.executable, "-m", "qmp_client.cli.entry", "doctor"]
SIM = [sys.executable, "-m", "qmp_client.cli.entry", "sim", "--"]


def examined(command: list[str], cache: Path, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run it as JSON with that cache folder; return its exit status and the findings by what they are about."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TDX_CPUID_")} | environment
    result = subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, check=False,
        env=env | {"XDG_CACHE_HOME": str(cache)},
    )  # fmt: skip
    diagnosis = json.loads(result.stdout)
    assert diagnosis["schema"] == "tdx-cpuid/doctor/1"
    assert diagnosis["able"] == (result.returncode == 0)
    return result.returncode, {finding["what"]: finding for finding in diagnosis["findings"]}


def a_qemu(folder: Path, text: str) -> Path:
    path = folder / "qemu-system-x86_64"
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version 10.2.2 (made up)'\n# {text}\n")
    path.chmod(0o755)
    return path


def test_a_machine_with_everything(tmp_path: Path, tdvf: Path) -> None:
    qemu = a_qemu(tmp_path, checks.PATCHED.decode())
    status, found = examined(DOCTOR, tmp_path, TDX_CPUID_QEMU=str(qemu), TDX_CPUID_FIRMWARE=str(tdvf))
    assert status == 0, found
    assert {found[what]["state"] for what in ("x86-64", "Python", "Python packages", "QEMU", "TDVF firmware")} == {"ok"}
    assert found["QEMU"]["found"] == f"{qemu} (10.2.2 (made up)), patched"
    assert found["ptrace"]["state"] == "ok"


def test_a_machine_without_a_qemu_is_told_how_to_get_one(tmp_path: Path, tdvf: Path) -> None:
    status, found = examined(DOCTOR, tmp_path, TDX_CPUID_FIRMWARE=str(tdvf))
    assert status == 3
    assert found["QEMU"]["state"] == "missing"
    assert found["QEMU"]["mend"].startswith("scripts/build-qemu")
    assert "negotiate" in found["QEMU"]["needed-for"]


@pytest.mark.parametrize("text", ["", "#!/bin/sh\nexit 3\n", "#!/bin/sh\necho cat 9.1\n"])
def test_a_program_that_is_no_qemu_is_none(text: str, tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(text)
    program.chmod(0o755)
    status, found = examined(DOCTOR, tmp_path, TDX_CPUID_QEMU=str(program), TDX_CPUID_FIRMWARE="/nonexistent")
    assert status == 3
    assert found["QEMU"]["state"] == "missing"
    assert found["QEMU"]["found"] == f"{program} is no QEMU"
    assert found["QEMU"]["mend"].startswith("unset TDX_CPUID_QEMU; "), "what is built would not be taken"
    assert found["TDVF firmware"]["mend"] == "unset TDX_CPUID_FIRMWARE; scripts/get-firmware"


def test_a_stock_qemu_is_enough_but_limited(tmp_path: Path, tdvf: Path) -> None:
    qemu = a_qemu(tmp_path, "")
    status, found = examined(DOCTOR, tmp_path, TDX_CPUID_QEMU=str(qemu), TDX_CPUID_FIRMWARE=str(tdvf))
    assert (status, found["QEMU"]["state"]) == (0, "limited")


def test_a_process_that_may_not_have_a_listener(tmp_path: Path, tdvf: Path) -> None:
    """Inside the simulation there is no second one: the doctor must see that from the kernel's own answer."""
    qemu = a_qemu(tmp_path, checks.PATCHED.decode())
    status, found = examined([*SIM, *DOCTOR], tmp_path, TDX_CPUID_QEMU=str(qemu), TDX_CPUID_FIRMWARE=str(tdvf))
    assert status == 3
    assert found["seccomp user notification"]["state"] == "missing"
    assert "another program already supervises this one" in found["seccomp user notification"]["found"]


def test_a_program_that_got_another_device_is_told_so() -> None:
    program = checks.TRIAL.replace("/dev/kvm", "/dev/null")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    finding = next(checks.simulation((done.returncode, done.stderr.strip(), {})))
    assert finding.state is Standing.MISSING
    assert finding.found == "a program got /dev/null instead of the simulated /dev/null"


def test_the_table_names_what_mends(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TDX_CPUID_")}
    result = subprocess.run(
        DOCTOR, capture_output=True, text=True, check=False, env=env | {"XDG_CACHE_HOME": str(tmp_path)}
    )
    assert result.returncode == 3
    assert "QEMU: scripts/build-qemu --install-deps" in result.stdout
    assert "negotiate does not work on this machine yet" in result.stdout


def test_what_only_other_commands_need_does_not_matter_for_the_main_job() -> None:
    broker = Finding("MQTT broker", ["agent"], Standing.MISSING, "no mosquitto", "...")
    assert diagnose([broker]).able
    assert not diagnose([broker, Finding("QEMU", ["negotiate"], Standing.MISSING, "none")]).able
    assert diagnose([Finding("ptrace", ["negotiate"], Standing.LIMITED, "...")]).able


@pytest.mark.parametrize(
    ("parameter", "state", "said"), [("Y\n", "ok", "TDX enabled"), ("N\n", "missing", "no TDX"), (None, "missing", "")]
)
def test_tdx_of_the_host(tmp_path: Path, parameter: str | None, state: str, said: str) -> None:
    device, switch = tmp_path / "kvm", tmp_path / "tdx"
    device.touch()
    if parameter is not None:
        switch.write_text(parameter)
    finding = checks.hardware(device, switch)
    assert finding.state == state
    assert said in finding.found
    assert checks.hardware(tmp_path / "none", switch).found.startswith("no ")


def test_another_architecture_and_an_old_python() -> None:
    assert checks.processor("aarch64").state is Standing.MISSING
    assert checks.python((3, 10, 12)).state is Standing.MISSING


def test_a_package_that_is_not_installed_counts_as_one_to_install() -> None:
    assert checks.packages("no-such-project").found == "none declared"
    assert checks.packages("tdx-cpuid").state is Standing.OK
