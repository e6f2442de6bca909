"""Named CPU models under TDX: every model of `-cpu help` negotiates, or a rule that forbids it is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qmp_client.matrix import journal
from qmp_client.qemu.ending import cpu_models
from tests.e2e.grid import run
from tests.waiting import PATIENCE

PLATFORM = "sapphire-rapids"
WITHOUT_LONG_MODE = {
    "486", "athlon", "base", "coreduo", "kvm32", "n270", "pentium", "pentium2", "pentium3", "qemu32"
}  # fmt: skip
"""Models whose physical address width QEMU fixes at 32 or 36 bits; a TD has the host's."""


def negotiate(qemu: Path, firmware: Path, cpu: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qmp_client.cli.entry", "negotiate", "--qemu", str(qemu), "--firmware", str(firmware),
         "--platform", PLATFORM, "--cpu", cpu, "--format", "json", "--fail-on", "none"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_every_model_negotiates(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    """As cells of a matrix, each of which is what ``negotiate`` says (test_matrix) and saves a start of Python."""
    models, output = cpu_models(qemu), tmp_path / "out.jsonl"
    assert {"SapphireRapids-v3", "qemu64", "EPYC", "host"} <= set(models)
    options: list[str | Path] = ["--qemu", qemu, "--firmware", firmware, "--platform", PLATFORM, "--output", output]
    whole = run("matrix", *options, "--fail-on", "none", *(word for model in models for word in ("--cpu", model)))
    results = {result.cell.cpu: result for result in journal.read(output)}
    assert set(results) == set(models), whole.stderr
    refused = {cpu: result.error for cpu, result in results.items() if result.report is None}
    assert {cpu.partition("-v")[0] for cpu in refused} == WITHOUT_LONG_MODE
    for said in refused.values():
        assert "TDX requires guest CPU physical bits" in (said or "")
    for cpu, result in results.items():
        lines = result.report.lines if result.report else []
        assert [line for line in lines if line.cause.startswith("not as module")] == [], cpu


def test_the_rule_that_forbids_a_model_is_the_headline(qemu: Path, firmware: Path) -> None:
    result = negotiate(qemu, firmware, "486")
    assert (result.returncode, "TDX requires guest CPU physical bits" in result.stderr.splitlines()[0]) == (4, True)


@pytest.fixture(scope="module")
def sapphire(qemu: Path, firmware: Path) -> dict[str, Any]:
    result = negotiate(qemu, firmware, "SapphireRapids")
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def line(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(line for line in report["lines"] if line["name"] == name)


def test_the_platform_s_signature_is_asked_for(sapphire: dict[str, Any]) -> None:
    stepping = line(sapphire, "stepping")
    assert (stepping["asked"], stepping["chosen"], stepping["got"]) == (4, 0, 8)
    assert (stepping["verdict"], stepping["cause"]) == ("altered", "module-rule: family/model")


def test_what_a_model_asks_for_and_qemu_drops_is_said(sapphire: dict[str, Any]) -> None:
    hle = line(sapphire, "hle")
    assert (hle["asked"], hle["got"], hle["verdict"], hle["cause"]) == (
        1,
        0,
        "forced-off",
        "qemu-dropped (kvm-filtered)",
    )


def test_what_a_model_does_not_ask_for_and_the_td_has_is_said(sapphire: dict[str, Any]) -> None:
    dtes64 = line(sapphire, "dtes64")
    assert (dtes64["asked"], dtes64["got"], dtes64["verdict"], dtes64["cause"]) == (0, 1, "forced-on", "native")
