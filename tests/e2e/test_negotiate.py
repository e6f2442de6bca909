"""`tdx-cpuid negotiate` with the real QEMU on the simulated KVM: the main job, as a user runs it."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugin.cpuid import Leaf, Registers, spelled_like
from plugin.tdx_module import TdParams, init_td, load_host
from tests.e2e.negotiating import Negotiate, lines

PLATFORMS = ["sapphire-rapids", "emerald-rapids", "granite-rapids"]


@pytest.fixture(scope="session")
def negotiate(qemu: Path, firmware: Path) -> Negotiate:
    return Negotiate(qemu, firmware)


def chosen(report: dict[str, Any], leaf: int, register: str) -> int:
    return next(int(entry[register]) for entry in report["choice"]["cpuid"] if entry["leaf"] == leaf)


def test_the_main_job(negotiate: Negotiate) -> None:
    result = negotiate("--cpu", "host", "--module", "1.5.05", "--smp", "2")
    assert result.returncode in (0, 1), result.stderr
    assert "2 vCPUs" in result.stdout
    assert "TDX module 1.5.05" in result.stdout
    assert "honoured" in result.stdout


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_td_is_what_the_module_s_tables_predict(negotiate: Negotiate, platform: str) -> None:
    report = negotiate.report("--cpu", "host", "--smp", "2", "--platform", platform)
    choice = report["choice"]
    cpuid = {
        Leaf(e["leaf"], e.get("subleaf")): Registers(e["eax"], e["ebx"], e["ecx"], e["edx"]) for e in choice["cpuid"]
    }
    host = load_host("1.5.05", platform)
    offered = spelled_like(host.module.configurable, cpuid)  # all but the guest address width, which is KVM's own
    cpuid = {leaf: value & offered[leaf] for leaf, value in cpuid.items()}
    params = TdParams(choice["attributes"], choice["xfam"], spelled_like(cpuid, host.module.configurable))
    td = init_td(host.module, host.platform, params)
    assert not [line for line in report["lines"] if line["cause"].startswith("not as module")]
    for line in report["lines"]:
        leaf = Leaf(line["leaf"], line.get("subleaf"))
        predicted = td.cpuid.get(leaf)
        if predicted is None:
            assert line["got"] is None, line
        elif (line["leaf"], line["name"]) != (0x80000008, "guest_phys_addr_bits"):
            mask = (1 << line["high"] - line["low"] + 1) - 1
            assert line["got"] == predicted.get(line["register"]) >> line["low"] & mask, line


def test_host_means_the_simulated_processor(negotiate: Negotiate) -> None:
    report = negotiate.report("--cpu", "host")
    assert not lines(report, "cpu_vendorid_0") or lines(report, "cpu_vendorid_0")[0]["verdict"] == "honoured"
    family = [line for line in report["lines"] if line["leaf"] == 1 and line["register"] == "eax"]
    assert family, "leaf 1 EAX was asked for"
    assert {line["verdict"] for line in family} == {"honoured"}, "QEMU saw the platform's family and model"
    assert report["environment"].get("caveats", []) == []


def test_a_cleared_feature_reaches_init_vm(negotiate: Negotiate) -> None:
    plain, without = negotiate.report("--cpu", "host"), negotiate.report("--cpu", "host,-avx512f")
    avx512f = 1 << 16
    assert chosen(plain, 7, "ebx") & avx512f
    assert not chosen(without, 7, "ebx") & avx512f
    line = lines(without, "avx512f")[0]
    assert (line["asked"], line["chosen"], line["got"], line["verdict"]) == (0, 0, 0, "honoured")
    assert line["named"], "what the user names in --cpu has a line in any case"


def test_waitpkg_is_hidden_by_kvm(negotiate: Negotiate) -> None:
    line = lines(negotiate.report("--cpu", "host,-waitpkg"), "waitpkg")[0]
    assert (line["got"], line["cause"]) == (0, "kvm-filtered")


def test_minimal_gives_less_than_maximal(negotiate: Negotiate) -> None:
    least, most = negotiate.report("--choose", "minimal"), negotiate.report("--choose", "maximal")
    assert least["summary"]["honoured"] < most["summary"]["honoured"]
    assert chosen(least, 7, "ebx") == 0


def test_every_vcpu_is_read(negotiate: Negotiate) -> None:
    report = negotiate.report("--smp", "sockets=2,cores=2,threads=2")
    assert report["vcpus"] == 8
    assert not [line for line in report["lines"] if line.get("vcpu") is not None], "one TD, one CPUID"


def test_a_saved_choice_is_taken_exactly(negotiate: Negotiate, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    first = negotiate.report("--cpu", "host,-avx512f")
    saved.write_text(json.dumps(first))
    again = negotiate.report("--cpu", "host", "--choose", str(saved))
    assert again["choice"] == first["choice"]
    assert lines(again, "avx512f")[0]["verdict"] == "forced-off"
    assert lines(again, "avx512f")[0]["cause"] == "configured"


def test_expect_fails_only_on_a_difference(negotiate: Negotiate, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(negotiate.report("--cpu", "host")))
    assert negotiate("--cpu", "host", "--expect", str(saved)).returncode == 0
    changed = negotiate("--cpu", "host", "--choose", "minimal", "--expect", str(saved))
    assert changed.returncode == 1
    assert "new: " in changed.stdout


def test_the_default_policy_fails_on_broken_words(negotiate: Negotiate) -> None:
    result = negotiate("--cpu", "host")
    assert result.returncode == 0, "leaf 0x21 is in every TD and in no -cpu model, but nobody can mend that"
    assert negotiate("--cpu", "host,-stibp").returncode == 1
    assert "unasked" in result.stdout
    assert negotiate("--cpu", "host", "--fail-on", "none").returncode == 0


def test_a_choice_outside_the_configurable_bits_names_the_bit(negotiate: Negotiate, tmp_path: Path) -> None:
    choice = tmp_path / "choice.json"
    choice.write_text(json.dumps({"cpuid": [{"leaf": 7, "subleaf": 0, "ebx": "0x80"}]}))
    result = negotiate("--choose", str(choice))
    assert result.returncode == 2
    for word in ("0x7", "EBX", "7"):
        assert word in result.stderr


def test_a_contradiction_is_explained_before_qemu_is_started(negotiate: Negotiate) -> None:
    result = negotiate("--xfam", "0x20007", "--qemu", "/bin/false")
    assert result.returncode == 2
    assert "XFAM[18:17]" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--module", "1.5.5"], 2, "1.5.05"),
        (["--platform", "emerald"], 2, "emerald-rapids"),
        (["--cpu", "hots"], 2, "host"),
        (["--cpu", "host,avx512=on"], 2, "avx512f"),
        (["--cpu", "host,+avx512"], 2, "avx512f"),
        (["--qemu", "/nonexistent/qemu"], 2, "not a program"),
        (["--fail-on", "forced"], 2, "forced-o"),
        (["--expect", "/nonexistent.json"], 2, "cannot be read"),
        (["--firmware", "/nonexistent.fd"], 3, "get-firmware"),
        (["--firmware", sys.executable], 2, "no TDX metadata"),
        (["--hardware", "--module", "1.5.05"], 2, "--hardware"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(negotiate: Negotiate, options: list[str], code: int, said: str) -> None:
    result = negotiate(*options)
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_two_at_once(negotiate: Negotiate) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda cpu: negotiate.report("--cpu", cpu), ["host", "host,-avx512f"])
    assert lines(first, "avx512f")[0]["got"] == 1
    assert lines(second, "avx512f")[0]["got"] == 0
