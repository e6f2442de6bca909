"""--choose FILE: what is read from it, and what is said about a file that is no choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugin.cpuid import Leaf, Registers
from qmp_client.errors import UsageError
from qmp_client.negotiation.choice_file import read


def written(folder: Path, content: object) -> Path:
    path = folder / "choice.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_numbers_in_any_base(tmp_path: Path) -> None:
    choice = read(written(tmp_path, {"cpuid": [{"leaf": "0x7", "subleaf": 0, "ebx": "0x20"}], "xfam": "0x7"}))
    assert choice.leaves() == {Leaf(7, 0): Registers(ebx=0x20)}
    assert choice.xfam_value == 7
    assert choice.attributes_value is None


def test_a_saved_report_is_a_choice(tmp_path: Path) -> None:
    report = {"schema": "x", "choice": {"attributes": 1 << 28, "xfam": 3, "cpuid": [{"leaf": 1, "eax": 5}]}}
    choice = read(written(tmp_path, report))
    assert choice.leaves() == {Leaf(1): Registers(eax=5)}
    assert choice.attributes_value == 1 << 28


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a choice"),
        ([], "not a choice"),
        ({"cpuid": [{"leaf": "seven"}]}, "seven"),
        ({"cpuid": [{"leaf": 7, "eax": 1 << 32}]}, "does not fit 32 bits"),
        ({"cpuid": [{"leaf": 7, "eaxx": 1}]}, "eaxx"),
        ({"cpuid": [], "xfam": 1 << 64}, "64"),
        ({"cpuid": [], "attributes": -1}, "does not fit 64 bits"),
        ({"cpuid": [{"leaf": 7}, {"leaf": "0x7"}]}, "twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(written(tmp_path, content))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "absent.json")
