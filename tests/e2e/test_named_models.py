"""Named CPU models under TDX: every model of `-cpu help` negotiates, or a rule that forbids it is named."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qmp_client.qemu.ending import cpu_models

PLATFORM = "sapphire-rapids"
WITHOUT_LONG_MODE = {
    "486", "athlon", "base", "coreduo", "kvm32", "n270", "pentium", "pentium2", "pentium3", "qemu32"
}  # fmt: skip
"""Models whose physical address width QEMU fixes at 32 or 36 bits; a TD has the host's."""


def negotiate(qemu: Path, firmware: Path, cpu: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qmp_client.cli.entry", "negotiate", "--qemu", str(qemu), "--firmware", str(firmware),
         "--platform", PLATFORM, "--cpu", cpu, "--format", "json", "--fail-on", "none"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_every_model_negotiates(qemu: Path, firmware: Path) -> None:
    models = cpu_models(qemu)
    assert {"SapphireRapids-v3", "qemu64", "EPYC", "host"} <= set(models)
    with ThreadPoolExecutor(3) as pool:
        results = dict(zip(models, pool.map(lambda cpu: negotiate(qemu, firmware, cpu), models), strict=True))
    refused = {cpu: result.stderr for cpu, result in results.items() if result.returncode}
    assert {cpu.partition("-v")[0] for cpu in refused} == WITHOUT_LONG_MODE
    for said in refused.values():
        assert "TDX requires guest CPU physical bits" in said.splitlines()[0], "the rule is the headline"
    for cpu, result in results.items():
        if result.returncode:
            continue
        report = json.loads(result.stdout)
        undecided = [line for line in report["lines"] if line["cause"].startswith("not as module")]
        assert undecided == [], cpu


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
    assert (hle["asked"], hle["got"], hle["verdict"], hle["cause"]) == (1, 0, "forced-off", "qemu-dropped")


def test_what_a_model_does_not_ask_for_and_the_td_has_is_said(sapphire: dict[str, Any]) -> None:
    dtes64 = line(sapphire, "dtes64")
    assert (dtes64["asked"], dtes64["got"], dtes64["verdict"], dtes64["cause"]) == (0, 1, "forced-on", "native")
