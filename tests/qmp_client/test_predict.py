"""`tdx-cpuid predict` as a user runs it: no QEMU, the same exit codes as `negotiate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmp_client.cli.program import run

Output = pytest.CaptureFixture[str]


def report(output: Output, *options: str) -> dict[str, Any]:
    assert run(["predict", "--format", "json", "--fail-on", "none", *options]) == 0
    answer: dict[str, Any] = json.loads(output.readouterr().out)
    return answer


def lines(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [line for line in report["lines"] if line["name"] == name]


@pytest.fixture(autouse=True)
def _no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDX_CPUID_QEMU", "/nonexistent")
    monkeypatch.setenv("PATH", "")


def test_a_named_model(capsys: Output) -> None:
    found = report(capsys, "--cpu", "SapphireRapids", "--platform", "sapphire-rapids", "--smp", "2")
    assert found["vcpus"] == 2
    assert found["environment"]["qemu"] == "predicted"
    assert lines(found, "hle")[0]["cause"] == "qemu-dropped (kvm-filtered)"
    assert lines(found, "dtes64")[0]["verdict"] == "forced-on"


def test_a_feature_that_is_named_has_a_line(capsys: Output) -> None:
    line = lines(report(capsys, "--cpu", "host,-avx512f", "--module", "1.5.05"), "avx512f")[0]
    assert (line["asked"], line["chosen"], line["got"], line["named"]) == (0, 0, 0, True)


def test_the_default_policy_fails_on_what_somebody_can_mend(capsys: Output) -> None:
    assert run(["predict"]) == 0
    assert "10.2 (predicted)" in capsys.readouterr().out
    assert run(["predict", "--cpu", "host,-stibp"]) == 1
    said = capsys.readouterr().out
    assert "* 0x7.0.edx[27] stibp: drop -stibp" in said
    assert "1 line fails the policy (marked *): broken-word" in said


def test_a_saved_prediction_is_a_choice(capsys: Output, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    first = report(capsys, "--cpu", "host,-avx512f")
    saved.write_text(json.dumps(first))
    again = report(capsys, "--cpu", "host", "--choose", str(saved))
    assert again["choice"] == first["choice"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cpu", "SapphireRapid"], 2, "did you mean SapphireRapids"),
        (["--cpu", "host,+avx512"], 2, "avx512f"),
        (["--cpu", "host,hv-time"], 2, "negotiate runs the real QEMU"),
        (["--cpu", "486"], 4, "TDX requires guest CPU physical bits (32) to match host CPU physical bits (52)"),
        (["--cpu", "host,-mca"], 4, "mce and mca"),
        (["--smp", "3,sockets=2"], 4, "-smp 3,sockets=2"),
        (["--module", "1.5.5"], 2, "1.5.05"),
        (["--attributes", "0x40000000"], 2, "TD attribute bit 30"),
        (["--attributes", "0x1"], 2, "TD attribute bit 0"),
        (["--xfam", "0x20007"], 2, "XFAM[18:17]"),
        (["--fail-on", "forced"], 2, "forced-o"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(capsys: Output, options: list[str], code: int, said: str) -> None:
    assert run(["predict", *options]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"leaf": 7, "subleaf": 0, "ebx": "0x80"}, "CPUID leaf 0x7 sub-leaf 0 EBX bit 7 is not configurable"),
        ({"leaf": 0x99}, "CPUID leaf 0x99 is not configurable"),
        ({"leaf": 0x80000008, "eax": 0x2E0000}, "must be 48 or 52, not 46"),
    ],
    ids=["bit", "leaf", "width"],
)
def test_a_choice_that_qemu_does_not_take(capsys: Output, tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    choice = tmp_path / "choice.json"
    choice.write_text(json.dumps({"cpuid": [entry]}))
    assert run(["predict", "--choose", str(choice)]) == 2
    assert said in capsys.readouterr().err


def test_what_kvm_refuses_is_said(capsys: Output, tmp_path: Path) -> None:
    """A signature of one's own: the module gives it to no TD that cannot migrate."""
    choice = tmp_path / "choice.json"
    entries = [{"leaf": 1, "eax": 0x806F8}, {"leaf": 0x80000008, "eax": 48 << 16}]
    choice.write_text(json.dumps({"cpuid": entries}))
    assert run(["predict", "--choose", str(choice), "--module", "1.5.05"]) == 4
    assert "KVM would refuse the TD" in capsys.readouterr().err


def test_what_looks_like_markup_is_printed_as_it_is(capsys: Output) -> None:
    assert run(["predict", "--cpu", "host,model-id=[bold]:x:[/bold]", "--fail-on", "none"]) == 0
    assert "-cpu host,model-id=[bold]:x:[/bold] " in capsys.readouterr().out
