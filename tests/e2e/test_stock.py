"""A QEMU without the project's commands. `--stock` hides them; what is left is what every QEMU since 10.1 has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry", "negotiate"]


class Run:
    def __init__(self, qemu: Path, firmware: Path) -> None:
        self._given = ["--qemu", str(qemu), "--firmware", str(firmware), "--platform", "granite-rapids"]

    def __call__(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*PROGRAM, *self._given, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def report(self, *options: str) -> dict[str, Any]:
        result = self(*options, "--format", "json", "--fail-on", "none")
        assert result.returncode == 0, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer


@pytest.fixture(scope="module")
def negotiate(qemu: Path, firmware: Path) -> Run:
    return Run(qemu, firmware)


@pytest.mark.parametrize("cpu", ["host", "host,-avx512f", "host,-pku,-waitpkg"])
def test_what_is_put_together_is_what_the_commands_say(negotiate: Run, cpu: str) -> None:
    patched, stock = (
        negotiate.report("--cpu", cpu, "--smp", "2"),
        negotiate.report("--cpu", cpu, "--smp", "2", "--stock"),
    )
    assert stock["lines"] == patched["lines"]
    assert stock["choice"]["attributes"] == patched["choice"]["attributes"]
    assert stock["choice"]["xfam"] == patched["choice"]["xfam"]
    assert stock["actual"] == patched["actual"]
    assert stock["vcpus"] == 2


def test_what_cannot_be_seen_is_said(negotiate: Run) -> None:
    report = negotiate.report("--stock")
    assert [caveat for caveat in report["environment"]["caveats"] if caveat.startswith("a stock QEMU")]
    silent = negotiate.report("--stock", "--cpu", "host,check=off")
    assert [caveat for caveat in silent["environment"]["caveats"] if "check=off" in caveat]


@pytest.mark.parametrize("option", [("--choose", "minimal"), ("--xfam", "0x207"), ("--attributes", "0x10000000")])
def test_choices_that_need_the_commands_are_refused(negotiate: Run, option: tuple[str, str]) -> None:
    result = negotiate("--stock", *option)
    assert result.returncode == 2
    assert option[0] in result.stderr
    assert "name features in --cpu" in result.stderr


def test_named_models_are_refused_in_qemu_s_own_words(negotiate: Run) -> None:
    result = negotiate("--stock", "--cpu", "SapphireRapids")
    assert result.returncode == 4
    assert "Named cpu model is not supported for TDX yet" in result.stderr
