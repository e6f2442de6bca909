"""A grid from a TOML file: what it means, and errors that name the key at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmp_client.errors import UsageError
from qmp_client.matrix import grid_file


def read(folder: Path, text: str) -> dict[str, tuple[str, ...]]:
    path = folder / "grid.toml"
    path.write_text(text)
    return grid_file.read(path)


def test_strings_and_lists(tmp_path: Path) -> None:
    found = read(tmp_path, 'cpu = ["host", "EPYC*"]\nmachine = "q35"\nfail-on = "none"\n')
    assert found == {"cpu": ("host", "EPYC*"), "machine": ("q35",), "fail-on": ("none",)}


def test_the_documented_example_is_one(tmp_path: Path) -> None:
    example = (grid_file.__doc__ or "").partition("::\n")[2]
    found = read(tmp_path, "\n".join(line.strip() for line in example.splitlines()))
    assert set(found) == {*grid_file.AXES, *grid_file.SINGLE}, "every key is in the example"


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, 'qemu = ["build/qemu", "/usr/bin/qemu", "qemu-system-x86_64"]\nplatform = "mine.json"\n')
    assert found["qemu"] == (str(tmp_path / "build/qemu"), "/usr/bin/qemu", "qemu-system-x86_64")
    assert found["platform"] == (str(tmp_path / "mine.json"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("machines = 'q35'", "unknown key machines"),
        ("smp = 2", 'smp is a number; it takes a string or a list of strings (write "2")'),
        ("smp = ['1', 2]", 'smp[1] is a number; it takes a string (write "2")'),
        ("cpu = [['host']]", "cpu[0] is a list"),
        ("cpu = []", "cpu is an empty list"),
        ("cpu = ['']", "cpu[0] is empty"),
        ("module = true", "module is a boolean"),
        ("[cpu]\nname = 'host'", "cpu is a table"),
        ("choose = ['model']", "choose is a list; it takes a string"),
        ("cpu = ", "is not TOML"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "grid.toml" in str(caught.value)


def test_a_misspelt_key_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "machin = 'q35'")
    assert "machine" in caught.value.hint


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        grid_file.read(tmp_path / "none.toml")
