"""Runs ``negotiate`` with the session's QEMU and firmware, and takes its report apart."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.grid import ENTRY
from tests.waiting import PATIENCE


class Negotiate:
    """``tdx-cpuid negotiate`` on one platform."""

    def __init__(self, qemu: Path, firmware: Path, platform: str = "emerald-rapids") -> None:
        self._given = ["--qemu", str(qemu), "--firmware", str(firmware), "--platform", platform]
        self._given += ["--timeout", str(PATIENCE)]

    def __call__(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*ENTRY, "negotiate", *self._given, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def report(self, *options: str) -> dict[str, Any]:
        """The report as data, whatever it says."""
        result = self(*options, "--format", "json", "--fail-on", "none")
        assert result.returncode == 0, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer


def lines(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The lines about one field."""
    return [line for line in report["lines"] if line["name"] == name]
