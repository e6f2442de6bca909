"""``explain``: what a bit is, who controls it, and what a QEMU user can do about it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS, Bit, Leaf, Register
from plugin.cpuid.fields import Field, all_fields, find
from plugin.kvm.policy import ADDED_CPUID, UNSUPPORTED_CPUID
from plugin.tdx_module import ModuleVersion, load_module, load_platform, platform_names, published_names
from plugin.tdx_module.classes import class_of
from qmp_client.explain.explain import Explanation, Kvm, explain, ranges
from tests.waiting import PATIENCE

MODULES = [load_module(name) for name in published_names()]
PLATFORMS = [load_platform(name) for name in platform_names()]
KVM = Kvm(UNSUPPORTED_CPUID, ADDED_CPUID)


def about(name: str, module: str = "1.5.05") -> Explanation:
    return explain(find(name)[0], MODULES, PLATFORMS, KVM, load_module(module))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmp_client.cli.entry", "explain", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("name", "on", "off"),
    [
        ("avx512f", "-cpu host,+avx512f (where the processor has it and xfam[5])", "-cpu host,-avx512f"),
        ("la57", "-cpu host,+la57 (where the processor has it)", "-cpu host,-la57"),
        ("pku", "-cpu host,+pku (it follows XFAM[9] PKRU)", "-cpu host,-pku (it follows XFAM[9] PKRU)"),
        ("avx2", "-cpu host,+avx (it follows XFAM[2] AVX)", "-cpu host,-avx"),
        ("waitpkg", "not possible: KVM does not let", "it is off: KVM does not let"),
        ("pks", "-cpu host,pks=on (it is ATTRIBUTES.PKS)", "-cpu host,pks=off"),
        ("lass", "negotiate --attributes, bit 27 (LASS) = 1", "negotiate --attributes, bit 27 (LASS) = 0"),
        ("hypervisor", "not possible: the module sets it", "not possible: the module sets it"),
        ("sgx", "not possible: the module clears", "not possible: the module clears"),
        ("x2apic", "not possible: it is the processor's own", "not possible: it is the processor's own"),
        ("ospke", "not possible: the module computes it as the guest asks", "not possible"),
        ("hwp", "not possible: the leaf raises #VE; the VMM answers", "not possible"),
        ("guest-phys-bits", "-cpu host,guest-phys-bits=N: KVM takes it", "-cpu host,guest-phys-bits=N"),
    ],
)
def test_how_to_switch(name: str, on: str, off: str) -> None:
    said = about(name)
    assert said.on.startswith(on)
    assert said.off.startswith(off)


def test_a_leaf_that_waits_for_the_guest() -> None:
    assert about("hwp", "2.0.18").on == "not possible: the leaf raises #VE until the guest sets TD_CTLS.REDUCE_VE"


def test_what_has_no_name_in_qemu_is_chosen_by_place() -> None:
    assert about("0x7.1.eax[3]", "2.0.18").on.startswith("negotiate --choose FILE, with 0x7.1 eax")


def test_who_controls_it_in_each_version() -> None:
    said = about("avx512f")
    assert said.modules == {
        **dict.fromkeys(("1.0", "1.0.3"), "xfam[5]"),
        **dict.fromkeys(("1.5.01", "1.5.05", "1.5.34", "2.0.18"), "allow (xfam[5])"),
    }
    assert ranges(said.modules) == [("1.0 to 1.0.3", "xfam[5]"), ("1.5.01 to 2.0.18", "allow (xfam[5])")]


def test_values_on_processors_and_what_kvm_does() -> None:
    width = about("0x80000008.eax")
    assert width.platforms == {"emerald-rapids": 46, "granite-rapids": 52, "sapphire-rapids": 52}
    assert about("la57").critical
    assert not about("waitpkg").critical
    assert about("waitpkg").hidden_by_kvm
    assert not about("la57").hidden_by_kvm


@settings(deadline=None)
@given(st.sampled_from(all_fields()), st.sampled_from(MODULES))
def test_every_field_can_be_explained(field: Field, module: ModuleVersion) -> None:
    said = explain(field, MODULES, PLATFORMS, KVM, module)
    assert said.on
    assert said.off
    assert set(said.modules) == set(published_names())
    assert set(said.platforms) == set(platform_names())


@settings(deadline=None)
@given(st.integers(0, 0x30), st.integers(0, 5), st.sampled_from(REGISTERS), st.integers(0, 31))
def test_any_bit_can_be_explained(number: int, subleaf: int, register: Register, position: int) -> None:
    bit = Bit(Leaf(number, subleaf), register, position)
    said = explain(bit, MODULES, PLATFORMS, KVM, MODULES[-1])
    assert said.where == str(bit)
    assert said.modules["2.0.18"] == str(class_of(MODULES[-1], bit))


class TestCommand:
    def test_a_name(self) -> None:
        result = run("waitpkg")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("waitpkg  0x7.0.ecx[5]")
        assert "hides it from VMMs" in result.stdout

    def test_a_place(self) -> None:
        assert run("7.0.ecx.5").stdout == run("waitpkg").stdout

    def test_a_register_gives_all_its_fields(self) -> None:
        result = run("0x80000008.eax")
        assert all(name in result.stdout for name in ("phys-bits", "virt_addr_bits", "guest-phys-bits"))

    def test_many_are_a_table(self) -> None:
        result = run("7.0.ecx", "--module", "1.0")
        assert "KVM relies on it" in result.stdout
        assert "allow (xfam[5])" in result.stdout
        assert result.stdout.splitlines()[0].split()[:3] == ["bits", "name", "1.0"]

    def test_json(self) -> None:
        (said,) = json.loads(run("avx512f", "--format", "json", "--module", "1.5.05").stdout)
        assert said["where"] == "0x7.0.ebx[16]"
        assert said["modules"]["1.0"] == "xfam[5]"
        assert said["module"] == "1.5.05"

    @pytest.mark.parametrize(
        ("arguments", "hint"), [(["waitpk"], "waitpkg"), (["waitpkg", "--module", "1.5.5"], "1.5.05")]
    )
    def test_unknown_names(self, arguments: list[str], hint: str) -> None:
        result = run(*arguments)
        assert result.returncode == 2
        assert hint in result.stderr
