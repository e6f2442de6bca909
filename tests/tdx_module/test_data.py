"""The data files hold together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugin.cpuid import ZERO, Bit, Leaf, Registers
from plugin.kvm.host import HostRefused, find_host
from plugin.tdx_module import (
    Mismatch,
    Platform,
    TdParams,
    UnknownName,
    catalog,
    check_platform,
    init_td,
    load_module,
    load_platform,
    module_names,
    platform_names,
    published_names,
)
from plugin.tdx_module.catalog import _age
from plugin.tdx_module.errors import UnknownRule
from plugin.tdx_module.rules.table import RULES
from tests.tdx_module.gates import xfam_features


@pytest.mark.parametrize("version", module_names())
def test_masks_of_a_row_do_not_overlap(version: str) -> None:
    for row in load_module(version).rows.values():
        masks = (row.config_direct, row.allow_direct, row.fixed1, row.fixed0_or_dynamic)
        for n, mask in enumerate(masks):
            for other in masks[n + 1 :]:
                assert mask & other == ZERO, row.leaf
        assert row.dynamic.without(row.fixed0_or_dynamic) == ZERO, row.leaf
        assert row.platform_must_match_value.without(row.platform_must_match_mask) == ZERO, row.leaf


@pytest.mark.parametrize("version", module_names())
def test_config_indices_count_up_without_gaps_and_rows_come_in_that_order(version: str) -> None:
    module = load_module(version)
    indices = [row.config_index for row in module.rows.values() if row.config_index is not None]
    assert indices == list(range(len(module.configurable)))
    assert list(module.rows)[: len(indices)] == list(module.configurable)


@pytest.mark.parametrize("version", module_names())
def test_every_listed_rule_exists(version: str) -> None:
    assert set(load_module(version).rules) <= RULES.keys()


def test_every_rule_is_used_and_explained() -> None:
    listed = {rule for version in module_names() for rule in load_module(version).rules}
    assert listed == RULES.keys()
    assert all(rule[0].__doc__ for rule in RULES.values())


class TestARuleThatThereIsNot:
    """The file of a newer tdx-cpuid, or a damaged one: to go on without the rule would give wrong bits in silence."""

    @pytest.fixture
    def version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        data = json.loads((Path(catalog._MODULES) / "2.0.18.json").read_text())
        data |= {"version": "9.9", "rules": ["xfam", "topolgy-levels"]}
        (tmp_path / "9.9.json").write_text(json.dumps(data))
        monkeypatch.setattr(catalog, "_MODULES", str(tmp_path))
        return "9.9"

    def test_is_named_when_the_version_is_loaded(self, version: str) -> None:
        with pytest.raises(UnknownRule) as caught:
            load_module(version)
        assert str(caught.value) == (
            "TDX module 9.9 has the special rule 'topolgy-levels', which this tdx-cpuid does not know: the version's"
            " file is damaged or made for a newer one; the nearest rules are topology-levels, topology,"
            " perfmon-subleaves"
        )

    def test_ends_a_command_with_that_sentence(self, version: str) -> None:
        with pytest.raises(HostRefused, match=r"9\.9 has the special rule 'topolgy-levels'"):
            find_host(version, "granite-rapids")

    def test_is_not_passed_over_when_a_td_is_made(self, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog, "rules_of", lambda module: [])
        unchecked = load_module.__wrapped__(version)
        with pytest.raises(UnknownRule, match="topolgy-levels"):
            init_td(unchecked, load_platform("granite-rapids"), TdParams(0, 3, {}))


def test_versions_differ_in_rules_as_published() -> None:
    first, last = load_module("1.0"), load_module("1.5.05")
    assert not {"family/model", "topology", "tsx"} & set(first.rules)
    assert {"family/model", "topology", "tsx"} <= set(last.rules)


def test_a_version_says_where_its_facts_are_from_and_what_is_missing() -> None:
    for version in ("1.5.34", "2.0.18"):
        module = load_module(version)
        assert "intel/tdx-module" in module.source
        assert "cpuid_configurations.c" in module.source
        assert "commit" in module.source
        assert any(note.startswith("Not modelled:") for note in module.notes)


def test_a_version_with_a_base_differs_only_where_it_says_so() -> None:
    base, future = load_module("2.0.18"), load_module("future")
    changed = {leaf for leaf in future.rows if future.rows[leaf] != base.rows.get(leaf)}
    assert changed == {Leaf(0), Leaf(1), Leaf(7, 0), Leaf(7, 1), Leaf(0x26)}
    assert base.rows.keys() <= future.rows.keys()
    assert future.rules == base.rules


def test_configurable_bits_of_the_first_leaf() -> None:
    assert load_module("1.5.05").configurable[Leaf(1)] == (0x0FFF3FFF, 0x00FF0000, 0x31044D88, 0xB8440000)


def test_features_that_hang_on_pkru() -> None:
    assert xfam_features(load_module("1.5.05"))[9] == [Bit(Leaf(7, 0), "ecx", 3), Bit(Leaf(0xD, 0), "eax", 9)]


@pytest.mark.parametrize(
    ("processor", "khz"),
    [("sapphire-rapids", 2_592_000), ("emerald-rapids", 2_100_000), ("granite-rapids", 3_000_000)],
)
def test_tsc_frequency_of_a_processor(processor: str, khz: int) -> None:
    # Crystal clock times ratio: 24 MHz * 216 / 2, 25 MHz * 168 / 2, 25 MHz * 240 / 2.
    assert load_platform(processor).tsc_khz == khz


def test_a_leaf_above_the_maximum_is_zero_natively_but_not_when_executed() -> None:
    platform = load_platform("emerald-rapids")
    assert platform.maximum_leaf == 0x20
    assert platform.native_leaf(Leaf(0x23, 0)) == ZERO
    assert platform.execute(0x16, 0).eax == 2100
    assert platform.execute(0x55, 0) == platform.execute(0x20, 0)
    assert platform.execute(0x80000099, 0) == platform.execute(0x20, 0)


def test_what_is_recorded_above_the_maximum_does_not_count() -> None:
    full = load_platform("emerald-rapids")
    native = {**full.native, Leaf(0): Registers(eax=0x14), Leaf(0x80000000): Registers(eax=0x80000007)}
    small = Platform("small", "", native, tsx_ctrl=False)
    assert small.native_leaf(Leaf(0x14, 0)) == full.native_leaf(Leaf(0x14, 0)) != ZERO
    assert small.native_leaf(Leaf(0x15)) == ZERO
    assert small.native_leaf(Leaf(0x80000008)) == ZERO
    refused = check_platform(load_module("1.5.05"), small)
    assert Mismatch(Leaf(0), "eax", 0xFFFFFFFF, 0x1F, 0x14) in refused


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"1\.5\.05"):
        load_module("1.5.5")
    with pytest.raises(UnknownName, match="emerald-rapids"):
        load_platform("emerald")


def test_versions_are_ordered_by_their_numbers() -> None:
    assert sorted(["1.10.0", "2.0.08", "1.5.34", "1.5.05", "1.0", "1.5.5"], key=_age) == [
        *("1.0", "1.5.05", "1.5.5", "1.5.34", "1.10.0", "2.0.08"),
    ]


def test_names_are_sorted() -> None:
    assert module_names() == ("1.0", "1.0.3", "1.5.01", "1.5.05", "1.5.34", "2.0.18", "future")
    assert published_names() == module_names()[:-1]
    assert platform_names() == ("emerald-rapids", "granite-rapids", "sapphire-rapids")
