"""`tdx-cpuid capture` against the simulated KVM: what goes in comes out, to the byte, and can be replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugin.cpuid import Leaf, Registers
from plugin.kvm.native_cpuid import native_platform
from plugin.kvm.uapi.cpuid import entry
from plugin.tdx_module import load_module, load_platform, module_names, published_names
from plugin.tdx_module.errors import BadModule
from qmp_client.capture.kvm import NoTdx, Offer, ask
from qmp_client.capture.missing import five_lines
from qmp_client.capture.profile import nearest, profile
from qmp_client.qemu import tdx_host
from tests.kvm.device.conftest import Vmm
from tests.waiting import PATIENCE

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)


def captured(file: Path, module: str, platform: str = "granite-rapids") -> dict[str, Any]:
    simulated = ["sim", "--module", module, "--platform", platform, "--", *PROGRAM, "capture", str(file)]
    result = run(*simulated)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(file.read_text())
    return answer


@pytest.mark.parametrize("version", published_names())
def test_what_a_host_offers_can_be_simulated_to_the_byte(version: str, tmp_path: Path) -> None:
    """What KVM offers with the captured module is what it offered the capture."""
    file = tmp_path / "host.json"
    captured(file, version)
    replayed, original = load_module(str(file)), load_module(version)
    assert list(replayed.configurable.items()) == list(original.configurable.items())
    platform = load_platform("granite-rapids")
    was, now = Vmm(original, platform), Vmm(replayed, platform)
    assert was.capabilities(was.td_vm()) == now.capabilities(now.td_vm())


def test_the_processor_the_kernel_and_kvm_are_in_it(tmp_path: Path) -> None:
    """The capture's own CPUID instructions see this machine; KVM's leaves are the simulated processor's."""
    found = captured(tmp_path / "host.json", "1.5.05")
    assert found["schema"] == "tdx-cpuid/profile/1"
    here = native_platform()
    assert load_platform(str(tmp_path / "host.json")).native[Leaf(0x80000002)] == here.native[Leaf(0x80000002)]
    assert found["tdx-module"]["attributes"] == "0x10000000"
    assert found["kernel"]["release"]
    assert Leaf.parse("0x7.0") in {Leaf.parse(leaf) for leaf in found["kvm-supported"]}


def test_a_bit_that_no_known_module_offers_is_kept(tmp_path: Path) -> None:
    module = load_module("1.5.05")
    new = Registers(edx=1 << 30)
    shown = [entry(Leaf(leaf.number), mask | (new if leaf == Leaf(7, 1) else Registers()))._replace(
        subleaf=leaf.subleaf or 0
    ) for leaf, mask in module.configurable.items()]  # fmt: skip
    file = tmp_path / "host.json"
    known = {name: load_module(name) for name in published_names()}
    offer = Offer(1 << 28, 3, tuple(shown), ())
    assert nearest(offer, known) in known
    file.write_text(json.dumps(profile(offer, load_platform("granite-rapids"), {}, known)))
    assert load_module(str(file)).configurable[Leaf(7, 1)].edx & 1 << 30


def test_the_modules_own_version_decides_what_it_is_like(tmp_path: Path) -> None:
    known = {name: load_module(name) for name in published_names()}
    offer = Offer(1 << 28, 3, (), ())
    like = {
        version: profile(offer, load_platform("granite-rapids"), {}, known, version)["tdx-module"]
        for version in ("1.5.01", "9.9.99", "")
    }
    assert (like["1.5.01"]["version"], like["1.5.01"]["like"]) == ("1.5.01", "1.5.01")
    assert like["9.9.99"]["like"] == like[""]["like"] == nearest(offer, known)
    for version, said in (("9.9.99", "captured, version 9.9.99;"), ("", "captured, of a version that its kernel did")):
        file = tmp_path / f"host{version}.json"
        file.write_text(json.dumps(profile(offer, load_platform("granite-rapids"), {}, known, version)))
        assert said in load_module(str(file)).source


def test_the_kernel_tells_which_module_is_loaded(tmp_path: Path) -> None:
    assert tdx_host.module_version(tmp_path) == ""
    file = tmp_path / "sys/devices/faux/tdx_host/version"
    file.parent.mkdir(parents=True)
    file.write_text("1.5.06\n")
    assert tdx_host.module_version(tmp_path) == "1.5.06"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"tdx-module": {"like": "1.5.05"}}', '{"tdx-module": {"like": "9"}}']
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "host.json"
    file.write_text(text)
    with pytest.raises(BadModule):
        load_module(str(file))
    assert run("sim", "--module", str(file), "--", "true").returncode == 2
    assert str(file) not in module_names()


def test_without_tdx_the_call_that_shows_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoTdx, match="cannot be opened: No such file"):
        ask(str(tmp_path / "kvm"))
    (tmp_path / "kvm").write_text("")
    with pytest.raises(NoTdx, match="refuses"):
        ask(str(tmp_path / "kvm"))


INTEL = "vendor_id\t: GenuineIntel\nmodel name\t: A Xeon\nflags\t\t: fpu tme {}\n\nvendor_id\t: other\n"


def a_machine(root: Path, flags: str = "", parameter: str | None = None, options: str | None = None) -> Path:
    for folder in ("proc", "boot", "dev", "sys/module/kvm_intel/parameters"):
        (root / folder).mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(INTEL.format(flags))
    if parameter is not None:
        (root / "sys/module/kvm_intel/parameters/tdx").write_text(parameter + "\n")
    if options is not None:
        (root / "boot/config-6.16.1").write_text(options)
    return root


def test_five_lines_on_a_host_that_is_ready(tmp_path: Path) -> None:
    root = a_machine(tmp_path, "tdx_host_platform", "Y", "CONFIG_INTEL_TDX_HOST=y\nCONFIG_KVM_INTEL_TDX=y\n")
    (root / "dev/kvm").touch()
    assert five_lines(root, "6.16.1") == [
        "processor: A Xeon", "BIOS: TDX is enabled", "kernel: Linux 6.16.1 has TDX", "kvm_intel: tdx=Y",
        "/dev/kvm: may be opened",
    ]  # fmt: skip


def test_five_lines_name_each_thing_that_is_missing(tmp_path: Path) -> None:
    lines = five_lines(a_machine(tmp_path / "a", "hypervisor", "N", "CONFIG_INTEL_TDX_HOST=y\n"), "6.16.1")
    assert "in a virtual machine" in lines[0]
    assert "enable TDX and SEAM loader in the BIOS" in lines[1]
    assert lines[2] == "kernel: Linux 6.16.1 lacks CONFIG_KVM_INTEL_TDX"
    assert "kvm_intel.tdx=1" in lines[3]
    assert "not there" in lines[4]
    old = five_lines(a_machine(tmp_path / "b"), "6.8.0-40-generic")
    assert "too old" in old[2]
    assert "no parameter tdx" in old[3]
    bare = five_lines(tmp_path / "c", "6.16.1")
    assert len(bare) == 5
    assert "modprobe kvm_intel" in bare[3]


def test_no_setting_is_recommended_where_none_helps(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n")
    lines = five_lines(tmp_path, "6.16.1")
    assert "AMD EPYC has no TDX" in lines[0]
    assert lines[1] == "BIOS: nothing to enable: this processor has no TDX"
    assert "modprobe" not in lines[3]
