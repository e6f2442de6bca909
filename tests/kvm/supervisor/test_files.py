"""The table of descriptors: what nobody holds any more is given back, without asking about each at every call."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from plugin.kvm.contract import NewFile
from plugin.kvm.supervisor.files import FEW, FileTable, KvmFile
from tests.kvm.supervisor.fake_kvm import System


class Counting(FileTable):
    """Counts how many files are asked whether they are in use."""

    __slots__ = ("asked",)

    def release_unused(self) -> None:
        self.asked = getattr(self, "asked", 0) + len(self)
        super().release_unused()


@pytest.fixture
def held() -> Iterator[list[int]]:
    """Descriptors that the caller has."""
    descriptors: list[int] = []
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def add(table: FileTable, held: list[int] | None = None) -> None:
    file = KvmFile(NewFile(System(), 0, "kvm"))
    if held is not None:
        held.append(os.dup(file.theirs))
    table.add(file)


def test_many_files_in_use_are_seldom_asked(held: list[int]) -> None:
    table = Counting()
    for _ in range(300):
        table.release_if_many()
        add(table, held)
    assert len(table) == 300
    assert table.asked < 2 * 300


def test_what_nobody_holds_is_given_back() -> None:
    table = FileTable()
    for _ in range(10 * FEW):
        table.release_if_many()
        add(table)
        assert len(table) <= FEW
    table.release_unused()
    assert len(table) == 0
