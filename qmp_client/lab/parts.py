"""The parts of a host that can change what a guest sees: which versions they have, and whether one was replaced."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from qmp_client.lab.config import Config
from qmp_client.lab.wire import Versions
from qmp_client.qemu import tdx_host
from qmp_client.report.model import Report

File = tuple[int, int, int, int]


def versions(qemu: str, firmware: str, report: Report) -> Versions:
    """What the host consisted of when the report was made."""
    processor = _processor()
    return Versions(
        module=report.environment.module or tdx_host.module_version(),
        microcode=processor.get("microcode", ""),
        kernel=platform.release(),
        qemu=f"{report.environment.qemu_version} ({_digest(qemu)})",
        firmware=_digest(firmware),
        platform=report.environment.platform or processor.get("model name", ""),
    )


def fingerprint(config: Config) -> tuple[object, ...]:
    """Something that is another when a part was replaced under a running agent. Cheap: looks at no contents.

    The kernel is not in it: it does not change without the agent, which measures when it starts.
    """
    return (
        _file(next(iter(config.qemu.values()))),
        _file(config.firmware),
        tdx_host.module_version(),
        _line("/sys/devices/system/cpu/cpu0/microcode/version"),
    )


def _file(path: str) -> File | None:
    try:
        found = os.stat(path)  # noqa: PTH116  where a link points to counts
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _processor() -> dict[str, str]:
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
