"""Which host a user gets for what he typed: names, files, this machine; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plugin.tdx_module
from plugin.cpuid import Leaf, Registers
from plugin.kvm.host import HostRefused, find_host
from plugin.kvm.native_cpuid import collect, native_platform
from plugin.tdx_module import (
    BadPlatform,
    Platform,
    PlatformRefused,
    load_module,
    load_platform,
    module_names,
    platform_names,
    tdx_host,
)
from plugin.tdx_module.platform_file import platform_from_data
from tests.waiting import PATIENCE

DATA = Path(plugin.tdx_module.__file__).parent / "data" / "platforms"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmp_client.cli.entry", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


class TestStrict:
    @pytest.mark.parametrize("platform", platform_names())
    @pytest.mark.parametrize("module", module_names())
    def test_refuses_exactly_what_would_be_assumed_otherwise(self, module: str, platform: str) -> None:
        loose = tdx_host(load_module(module), load_platform(platform))
        if loose.assumed:
            with pytest.raises(PlatformRefused) as caught:
                tdx_host(load_module(module), load_platform(platform), strict=True)
            assert caught.value.mismatches == loose.assumed
            assert all(str(mismatch) in str(caught.value) for mismatch in loose.assumed)
        else:
            assert tdx_host(load_module(module), load_platform(platform), strict=True) == loose

    def test_another_vendor_is_never_assumed_to_be_intel(self) -> None:
        platform = load_platform("granite-rapids")
        amd = {**platform.native, Leaf(0): Registers(0x20, 0x68747541, 0x444D4163, 0x69746E65)}
        with pytest.raises(PlatformRefused, match="its vendor is AuthenticAMD, not GenuineIntel"):
            tdx_host(load_module("1.5.05"), Platform("amd", "", amd, tsx_ctrl=False))

    def test_on_the_command_line(self) -> None:
        refused = run("sim", "--strict-platform", "--", "true")
        assert refused.returncode == 2
        assert "TDX module 1.5.05 does not start on emerald-rapids: 0x80000008.eax" in refused.stderr
        assert run("sim", "--strict-platform", "--platform", "granite-rapids", "--", "true").returncode == 0
        assert run("sim", "--strict-platform", "--module", "1.5.34", "--", "true").returncode == 0
        both = run("negotiate", "--strict-platform", "--qemu", "/nonexistent", "--firmware", "/nonexistent")
        assert both.returncode == 2
        assert "without --strict-platform" in both.stderr


class TestFile:
    def test_the_projects_own_files_are_such_files(self) -> None:
        for name in platform_names():
            from_file = load_platform(str(DATA / f"{name}.json"))
            assert from_file.native == load_platform(name).native
            assert from_file.tsx_ctrl == load_platform(name).tsx_ctrl
            assert from_file.name == str(DATA / f"{name}.json")

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "is not JSON"),
            (b"{", "is not JSON"),
            (b"\xff\xfe", "is not JSON: it is text in UTF-16, not in UTF-8"),
            (b"[]", '"cpuid"'),
            (b'{"cpuid": 3}', '"cpuid"'),
            (b'{"cpuid": {"0x0": "00000020 0 0 0"}}', "lacks leaf 0x80000000"),
            (b'{"cpuid": {"leaf": "0 0 0 0"}}', '"leaf" is not a leaf'),
            (b'{"cpuid": {"0x0": "0 0 0"}}', "leaf 0x0 is '0 0 0'"),
            (b'{"cpuid": {"0x0": "0 0 0 x"}}', "hexadecimal"),
            (b'{"cpuid": {"0x0": "0 0 0 100000000"}}', "hexadecimal"),
            (b'{"cpuid": {"0x0": 7}}', "leaf 0x0 is 7"),
            (b'{"cpuid": {"0x0": "0 0 0 0", "0x80000000": "0 0 0 0"}, "notes": 1}', '"notes"'),
            (b'{"cpuid": {"0x0": "0 0 0 0", "0x80000000": "0 0 0 0"}, "tsx_ctrl": 1}', '"tsx_ctrl"'),
        ],
    )
    def test_a_corrupt_one_says_what_is_wrong(self, tmp_path: Path, content: bytes, problem: str) -> None:
        path = tmp_path / "mine.json"
        path.write_bytes(content)
        with pytest.raises(BadPlatform) as caught:
            load_platform(str(path))
        assert str(path) in str(caught.value)
        assert problem in str(caught.value)

    def test_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(HostRefused, match="No such file"):
            find_host("1.5.05", str(tmp_path / "none.json"))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.text() | st.integers(), lambda a: st.lists(a) | st.dictionaries(st.text(), a)
        )
    )
    def test_nonsense_is_refused_in_words(self, data: object) -> None:
        for one in (data, {"cpuid": data}, {"cpuid": {"0x0": data}}):
            with pytest.raises(BadPlatform):
                platform_from_data("nonsense", one)

    def test_on_the_command_line(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text((DATA / "granite-rapids.json").read_text())
        assert run("sim", "--platform", str(path), "--", "true").returncode == 0
        path.write_text(json.dumps({"cpuid": {}}))
        result = run("sim", "--platform", str(path), "--", "true")
        assert result.returncode == 2
        assert "lacks leaf 0x0" in result.stderr


class TestNative:
    def test_is_what_the_kernel_says(self) -> None:
        info = dict(
            line.split(":", 1)
            for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        said = {key.strip(): value.strip() for key, value in info.items()}
        platform = native_platform()
        first = platform.native[Leaf(0)]
        vendor = b"".join(word.to_bytes(4, "little") for word in (first.ebx, first.edx, first.ecx)).decode()
        assert vendor == said["vendor_id"]
        assert platform.maximum_leaf == int(said["cpuid level"])
        signature = platform.native_leaf(Leaf(1)).eax
        family, model = signature >> 8 & 0xF, signature >> 4 & 0xF | signature >> 12 & 0xF0
        assert family + (signature >> 20 & 0xFF if family == 15 else 0) == int(said["cpu family"])
        assert model == int(said["model"])
        assert bool(platform.native_leaf(Leaf(7, 0)).ebx >> 5 & 1) == ("avx2" in said["flags"].split())

    def test_either_starts_a_module_or_says_why_not(self) -> None:
        first = native_platform().native[Leaf(0)]
        result = run("sim", "--platform", "native", "--", "true")
        if first.ebx == 0x756E6547:
            assert result.returncode == 0
        else:
            assert result.returncode == 3
            assert "does not start on native: its vendor is" in result.stderr
            assert "Traceback" not in result.stderr

    @pytest.mark.parametrize("name", platform_names())
    def test_every_leaf_of_a_known_processor_is_collected(self, name: str) -> None:
        platform = load_platform(name)
        again = Platform("again", "", collect(platform.execute), tsx_ctrl=True)
        assert again.maximum_leaf == platform.maximum_leaf
        for leaf in platform.native:
            if leaf.number <= platform.maximum_leaf or 0x80000000 <= leaf.number <= platform.maximum_extended_leaf:
                assert again.native_leaf(leaf) == platform.native_leaf(leaf), leaf

    def test_a_processor_that_never_ends_is_not_asked_for_ever(self) -> None:
        ones = Registers(0x20, *(0xFFFFFFFF,) * 3)
        assert collect(lambda leaf, subleaf: ones if leaf != 0x80000000 else Registers(0xFFFFFFFF))
