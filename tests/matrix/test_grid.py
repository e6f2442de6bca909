"""From the words of a grid to its cells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_client.errors import UsageError
from qmp_client.matrix.grid import Grid, Offer, cells, choose, is_pattern, varying

MODELS = ["host", "SapphireRapids", "SapphireRapids-v1", "SapphireRapids-v2", "EPYC"]
OFFER = Offer(
    cpu=MODELS,
    machine=["pc-q35-10.1", "pc-q35-10.2", "q35"],
    module=["1.5.05", "future"],
    published=["1.5.05"],
    platform=["emerald-rapids", "granite-rapids"],
    kvm=["upstream", "proposal"],
)


def grid(**axes: tuple[str, ...]) -> Grid:
    whole = Grid(("host",), ("q35",), ("1.5.05",), ("emerald-rapids",), ("1",), ("upstream",))
    return whole._replace(**axes)


def test_a_pattern_takes_what_it_matches_in_the_order_of_the_offer() -> None:
    assert choose("cpu", ["Sapphire*"], MODELS) == ["SapphireRapids", "SapphireRapids-v1", "SapphireRapids-v2"]
    assert choose("cpu", ["*-v[12]"], MODELS) == ["SapphireRapids-v1", "SapphireRapids-v2"]


def test_features_stay_behind_every_model_of_a_pattern() -> None:
    assert choose("cpu", ["*-v1,-avx512f"], MODELS) == ["SapphireRapids-v1,-avx512f"]
    assert choose("cpu", ["all,+ss"], MODELS) == [f"{model},+ss" for model in MODELS]


def test_an_exclamation_mark_takes_out_what_came_before() -> None:
    assert choose("cpu", ["all", "!Sapphire*", "SapphireRapids-v2"], MODELS) == ["host", "EPYC", "SapphireRapids-v2"]


def test_a_name_is_taken_as_it_is() -> None:
    assert choose("cpu", ["mine,model-id=What?"], MODELS) == ["mine,model-id=What?"], "only the model is a pattern"


def test_all_modules_are_the_published_ones() -> None:
    found = cells(grid(module=("all",)), "qemu", OFFER)
    assert {cell.module for cell in found} == {"1.5.05"}
    assert {cell.module for cell in cells(grid(module=("f*",)), "qemu", OFFER)} == {"future"}


@pytest.mark.parametrize("words", [["Sapphir?-*"], ["host", "!*"]])
def test_nothing_left_is_an_error_that_names_the_option(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--cpu"):
        choose("cpu", words, MODELS)


def test_an_error_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        choose("cpu", ["SaphireRapids*"], MODELS)
    assert "SapphireRapids" in caught.value.hint


WORDS = st.lists(st.sampled_from(["all", "host", "*", "S*", "EPYC", "EPYC*,-aes", "!EPYC*"]), min_size=1)


@settings(deadline=None)
@given(WORDS)
def test_every_cell_is_there_once(cpu: list[str]) -> None:
    try:
        found = cells(grid(cpu=tuple(cpu), machine=("q35", "all", "q35"), smp=("1", "2", "1")), "qemu", OFFER)
    except UsageError:
        return
    assert len(set(found)) == len(found)
    assert len(found) == len(choose("cpu", cpu, MODELS)) * 3 * 2


def test_machine_types_are_next_to_each_other() -> None:
    found = cells(grid(cpu=("host", "EPYC"), machine=("all",)), "qemu", OFFER)
    assert [(cell.cpu, cell.machine) for cell in found[:3]] == [("host", name) for name in OFFER.machine]


def test_only_axes_that_differ_are_shown() -> None:
    assert varying(cells(grid(), "qemu", OFFER)) == ["cpu", "machine"]
    assert varying(cells(grid(platform=("all",), kvm=("all",)), "q", OFFER)) == ["cpu", "machine", "platform", "kvm"]


@pytest.mark.parametrize(("word", "expected"), [("all", True), ("q35", False), ("pc-*", True), ("!x", True)])
def test_what_is_a_pattern(word: str, expected: bool) -> None:
    assert is_pattern(word) is expected
