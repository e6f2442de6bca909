"""A QEMU without the project's commands. `--stock` hides them; what is left is what every QEMU since 10.1 has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.grid import ENTRY
from tests.e2e.negotiating import Negotiate
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def negotiate(qemu: Path, firmware: Path) -> Negotiate:
    return Negotiate(qemu, firmware, "granite-rapids")


@pytest.mark.parametrize("cpu", ["host", "host,-avx512f", "host,-pku,-waitpkg"])
def test_what_is_put_together_is_what_the_commands_say(negotiate: Negotiate, cpu: str) -> None:
    patched, stock = (
        negotiate.report("--cpu", cpu, "--smp", "2"),
        negotiate.report("--cpu", cpu, "--smp", "2", "--stock"),
    )
    assert stock["lines"] == patched["lines"]
    assert stock["choice"]["attributes"] == patched["choice"]["attributes"]
    assert stock["choice"]["xfam"] == patched["choice"]["xfam"]
    assert stock["actual"] == patched["actual"]
    assert stock["vcpus"] == 2


def test_what_cannot_be_seen_is_said(negotiate: Negotiate) -> None:
    report = negotiate.report("--stock")
    assert [caveat for caveat in report["environment"]["caveats"] if caveat.startswith("a stock QEMU")]
    silent = negotiate.report("--stock", "--cpu", "host,check=off")
    assert [caveat for caveat in silent["environment"]["caveats"] if "check=off" in caveat]


@pytest.mark.parametrize("option", [("--choose", "minimal"), ("--xfam", "0x207"), ("--attributes", "0x10000000")])
def test_choices_that_need_the_commands_are_refused(negotiate: Negotiate, option: tuple[str, str]) -> None:
    result = negotiate("--stock", *option)
    assert result.returncode == 2
    assert option[0] in result.stderr
    assert "name features in --cpu" in result.stderr


def test_named_models_are_refused_in_qemu_s_own_words(negotiate: Negotiate) -> None:
    result = negotiate("--stock", "--cpu", "SapphireRapids")
    assert result.returncode == 4
    assert "Named cpu model is not supported for TDX yet" in result.stderr


@pytest.fixture(scope="module")
def stock_qemu(qemu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary that has none of the project's names: each is overwritten by another one of the same length."""
    own = tmp_path_factory.mktemp("stock")
    binary = qemu.read_bytes()
    for name in (b"x-query-tdx-", b"x-tdx-set-cpuid-choices", b"x-named-cpu-models"):
        assert name in binary
        binary = binary.replace(name, b"y" + name[1:])
    for folder in ("bin", "share"):
        (own / folder).mkdir()
    for file in (qemu.parent.parent / "share").glob("*"):
        (own / "share" / file.name).symlink_to(file)
    program = own / "bin" / qemu.name
    program.write_bytes(binary)
    program.chmod(0o755)
    return program


def test_a_grid_has_a_stock_and_a_patched_qemu_side_by_side(
    stock_qemu: Path, qemu: Path, firmware: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    command = [*ENTRY, "matrix", "--qemu", str(stock_qemu), "--qemu", str(qemu), "--firmware", str(firmware)]
    options = ["--cpu", "host,-avx512f", "--cpu", "SapphireRapids", "--fail-on", "none", "--output", str(output)]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 4, result.stderr
    cells = [json.loads(line) for line in output.read_text().splitlines()]
    found = {(cell["cell"]["qemu"], cell["cell"]["cpu"]): cell for cell in cells}
    assert len(found) == 4
    stock, patched = (found[str(binary), "host,-avx512f"]["report"] for binary in (stock_qemu, qemu))
    assert stock["lines"] == patched["lines"], "--stock is not needed: a stock QEMU is recognised"
    assert stock["environment"]["caveats"] != patched["environment"]["caveats"]
    assert found[str(qemu), "SapphireRapids"]["report"]
    assert "this QEMU is a stock one" in found[str(stock_qemu), "SapphireRapids"]["error"]


def test_a_named_model_on_a_stock_binary_is_said_in_our_words(stock_qemu: Path, firmware: Path) -> None:
    result = Negotiate(stock_qemu, firmware)("--cpu", "SapphireRapids")
    assert result.returncode == 2
    assert "takes no CPU model but host for a TD" in result.stderr
    assert "scripts/build-qemu" in result.stderr
