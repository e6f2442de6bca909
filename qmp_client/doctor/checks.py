"""Looking at this machine. Nothing is changed, and /dev/kvm is not opened."""

from __future__ import annotations

import json
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from plugin.qemu.builder.requirements import REQUIREMENTS, SOURCE_PACKAGE, missing
from qmp_client.doctor.finding import Finding, Standing
from qmp_client.errors import TdxCpuidError
from qmp_client.qemu import firmware, locate
from qmp_client.qmp.session import NEEDED

PYTHON = (3, 11)
SIMULATED = ["negotiate", "sim", "matrix", "baseline"]
LAB = ["agent", "submit", "watch"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BUILD = "scripts/build-qemu --install-deps"
SAYS = "QEMU emulator version "
PATCHED = b"x-tdx-set-cpuid-choices"
assert PATCHED.decode() in NEEDED

TRIAL = """
import os, sys
device = os.open('/dev/kvm', os.O_RDWR)
name = os.readlink(f'/proc/self/fd/{device}')
if not name.startswith('/memfd:kvm'):
    sys.exit(f'a program got {name} instead of the simulated /dev/kvm')
"""
"""What is run under the simulation to see whether it works here, and whether the program got the simulated device."""

MODULE_PARAMETER = Path("/sys/module/kvm_intel/parameters/tdx")


def examine() -> Iterator[Finding]:
    """Look at everything, what the main job needs first."""
    yield processor(platform.machine())
    yield python(sys.version_info[:3])
    yield packages("tdx-cpuid")
    yield from simulation(trial())
    yield qemu()
    yield tdvf()
    yield hardware(Path("/dev/kvm"), MODULE_PARAMETER)
    yield build_tools()
    yield program("MQTT broker", ("mosquitto",), LAB, "mosquitto")
    yield program("headless browser", BROWSERS, ["scripts/test"], "chromium")


def processor(machine: str) -> Finding:
    """The simulation answers x86-64 system calls and instructions."""
    if machine == "x86_64":
        return Finding("x86-64", SIMULATED, Standing.OK, machine)
    return Finding("x86-64", SIMULATED, Standing.MISSING, machine, "run it on an x86-64 Linux")


def python(running: Sequence[int]) -> Finding:
    """The interpreter that runs this."""
    found = ".".join(str(part) for part in running)
    if tuple(running) >= PYTHON:
        return Finding("Python", SIMULATED, Standing.OK, f"{found} ({sys.executable})")
    return Finding("Python", SIMULATED, Standing.MISSING, found, "sudo apt-get install python3 python3-venv")


def packages(distribution: str) -> Finding:
    """The Python packages that the project declares, without its extras."""
    try:
        declared = requires(distribution) or []
    except PackageNotFoundError:
        declared = []
    names = [_project(line) for line in declared if "extra ==" not in line]
    lacking = [name for name in names if not _is_installed(name)]
    needed = ["negotiate", "matrix", "contract", "explain"]
    if lacking:
        mend = f"{sys.executable} -m pip install {' '.join(lacking)}"
        return Finding("Python packages", needed, Standing.MISSING, f"without {', '.join(lacking)}", mend)
    return Finding("Python packages", needed, Standing.OK, ", ".join(names) or "none declared")


def _project(requirement: str) -> str:
    """The name in front of a requirement's versions and markers (PEP 508)."""
    end = next((at for at, letter in enumerate(requirement) if letter not in "-_." and not letter.isalnum()), None)
    return requirement[:end]


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def trial() -> tuple[int, str, dict[str, object]]:
    """Run a tiny program under the simulation; return its exit status, its last words and the record."""
    with tempfile.TemporaryFile() as record:
        command = [sys.executable, "-I", "-c", TRIAL]
        code = (
            "import sys; from plugin.kvm.launch import *;"
            f"sys.exit(supervise(default_host, {command!r}, record_fd={record.fileno()}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, pass_fds=(record.fileno(),),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        record.seek(0)
        text = record.read()
    said = done.stderr.strip().splitlines()
    return done.returncode, said[-1] if said else "", json.loads(text) if text else {}


def simulation(outcome: tuple[int, str, dict[str, object]]) -> Iterator[Finding]:
    """What the trial showed: seccomp user notification, then ptrace."""
    status, said, record = outcome
    what = "seccomp user notification"
    if status:
        mend = "Linux 5.14 or newer; in a container: docker run --security-opt seccomp=unconfined"
        yield Finding(what, SIMULATED, Standing.MISSING, said or f"the trial ended with {status}", mend)
        return
    yield Finding(what, SIMULATED, Standing.OK, f"a program saw the simulated /dev/kvm (Linux {platform.release()})")
    cpuid = record.get("cpuid")
    interception = cpuid if isinstance(cpuid, dict) else {}
    if interception.get("active"):
        yield Finding("ptrace", SIMULATED, Standing.OK, "CPUID instructions of QEMU can be answered")
        return
    yield Finding(
        "ptrace",
        SIMULATED,
        Standing.LIMITED,
        f"{interception.get('why_not') or 'not available'}: -cpu host shows this machine's family, model and caches",
        "docker run --cap-add SYS_PTRACE, or sudo sysctl kernel.yama.ptrace_scope=1",
    )


def qemu(named: str | None = None) -> Finding:
    """The QEMU that `negotiate` would run."""
    try:
        path = locate.find_qemu(named)
    except TdxCpuidError as error:
        return Finding("QEMU", SIMULATED, Standing.MISSING, f"{error}", _without(locate.VARIABLE) + BUILD)
    said = _version_of(path)
    if said is None:
        return Finding("QEMU", SIMULATED, Standing.MISSING, f"{path} is no QEMU", _without(locate.VARIABLE) + BUILD)
    found = f"{path} ({said})"
    if is_patched(path):
        return Finding("QEMU", SIMULATED, Standing.OK, f"{found}, patched")
    return Finding(
        "QEMU", SIMULATED, Standing.LIMITED, f"{found}, stock: only --choose model, and less can be seen",
        _without(locate.VARIABLE) + BUILD,
    )  # fmt: skip


def is_patched(binary: Path) -> bool:
    """Whether a QEMU binary has this project's QMP commands: their names are in it as text."""
    try:
        with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(PATCHED) >= 0
    except (OSError, ValueError):  # it may be run and not be read, or is empty
        return False


def _without(variable: str) -> str:
    """What has to come first where a variable names something else than what a command would make."""
    return f"unset {variable}; " if os.environ.get(variable) else ""


def _version_of(binary: Path) -> str | None:
    """The version that it says; None when it does not say it as a QEMU does."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = done.stdout.partition("\n")[0]
    return first.removeprefix(SAYS) if first.startswith(SAYS) else None


def tdvf() -> Finding:
    """The firmware that a TD starts from."""
    path = Path(os.environ.get("TDX_CPUID_FIRMWARE") or firmware.default())
    try:
        firmware.check(path)
    except TdxCpuidError as error:
        return Finding(
            "TDVF firmware",
            SIMULATED,
            Standing.MISSING,
            f"{error}",
            _without("TDX_CPUID_FIRMWARE") + "scripts/get-firmware",
        )
    return Finding("TDVF firmware", SIMULATED, Standing.OK, f"{path}")


def hardware(device: Path, parameter: Path) -> Finding:
    """TDX of this host: wanted by --hardware and capture only."""
    needed = ["negotiate --hardware", "capture"]
    more = "tdx-cpuid capture says step by step what TDX needs; without it, everything is simulated"
    if not device.exists():
        return Finding("TDX on this host", needed, Standing.MISSING, f"no {device}", more)
    if not os.access(device, os.R_OK | os.W_OK):
        mend = "sudo usermod -aG kvm $USER, then log in again"
        return Finding("TDX on this host", needed, Standing.MISSING, f"{device} may not be opened", mend)
    try:
        enabled = parameter.read_text().strip()
    except OSError:
        enabled = ""
    if enabled == "Y":
        return Finding("TDX on this host", needed, Standing.OK, "KVM has TDX enabled")
    return Finding("TDX on this host", needed, Standing.MISSING, "KVM has no TDX", more)


def build_tools() -> Finding:
    """What compiles QEMU."""
    needed = ["scripts/build-qemu"]
    lacking = missing(REQUIREMENTS + SOURCE_PACKAGE)
    if not lacking:
        return Finding("compilers", needed, Standing.OK, "everything that QEMU's build needs")
    install = " ".join(dict.fromkeys(one.package for one in lacking))
    names = ", ".join(one.name for one in lacking)
    return Finding("compilers", needed, Standing.MISSING, f"without {names}", f"sudo apt-get install {install}")


def program(what: str, names: Sequence[str], needed: list[str], package: str) -> Finding:
    """Any one of some programs; Debian keeps daemons where a user's PATH does not look."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    for name in names:
        if found := shutil.which(name, path=path):
            return Finding(what, needed, Standing.OK, found)
    return Finding(what, needed, Standing.MISSING, f"no {' or '.join(names)}", f"sudo apt-get install {package}")
