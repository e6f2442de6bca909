"""Private ranges against a plain set of pages."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.kvm.contract import Rejected
from plugin.kvm.device.guest_memory import GuestMemory, Slot

PAGE = 4096
PAGES = 24
GUEST_MEMFD = 4
RANGES = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)).filter(lambda pair: pair[0] < pair[1])


@given(steps=st.lists(st.tuples(RANGES, st.booleans()), max_size=12))
def test_ranges_are_a_set_of_pages(steps: list[tuple[tuple[int, int], bool]]) -> None:
    memory = GuestMemory()
    expected: set[int] = set()
    for (first, end), private in steps:
        memory.set_private(first * PAGE, end * PAGE, private=private)
        pages = set(range(first, end))
        expected = expected | pages if private else expected - pages
    found = [page for start, stop in memory.private for page in range(start // PAGE, stop // PAGE)]
    assert found == sorted(expected)
    ends = [edge for pair in memory.private for edge in pair]
    assert ends == sorted(set(ends))  # neither empty nor touching


@given(slots=st.lists(st.tuples(RANGES, st.booleans()), max_size=4), private=st.lists(RANGES, max_size=4), asked=RANGES)
def test_memory_can_be_populated_up_to_the_first_page_that_is_shared_or_not_backed(
    slots: list[tuple[tuple[int, int], bool]], private: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    memory = GuestMemory()
    backed: set[int] = set()
    free = set(range(PAGES))
    for number, ((first, end), memfd) in enumerate(slots):
        pages = set(range(first, end))
        if pages <= free:  # slots do not overlap
            free -= pages
            backed |= pages if memfd else set()
            memory.set(number, Slot(first * PAGE, (end - first) * PAGE, GUEST_MEMFD if memfd else 0, 0))
    good: set[int] = set()
    for first, end in private:
        memory.set_private(first * PAGE, end * PAGE, private=True)
        good |= set(range(first, end)) & backed
    first, end = asked
    expected = next((page for page in range(first, end) if page not in good), end)
    assert memory.populatable(first * PAGE, end * PAGE) == expected * PAGE


@given(slots=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), RANGES, st.booleans()), max_size=20))
def test_slots_overlap_exactly_when_they_share_a_page(
    slots: list[tuple[int, int, tuple[int, int], bool]],
) -> None:
    """Made, moved and deleted in any order, in two address spaces."""
    memory = GuestMemory()
    expected: dict[int, set[int]] = {}
    for number, space, (first, end), deleted in slots:
        key = space << 16 | number
        pages = set() if deleted else set(range(first, end))
        wanted = Slot(first * PAGE, 0 if deleted else (end - first) * PAGE, 0, 0)
        others = [taken for other, taken in expected.items() if other != key and other >> 16 == space]
        overlaps = any(pages & taken for taken in others)
        old = expected.get(key)
        allowed = old is not None if deleted else old is None or len(old) == len(pages)
        try:
            memory.check(key, wanted, protected=True, spaces=2)
        except Rejected as rejected:
            assert rejected.errno == (errno.EEXIST if allowed and overlaps else errno.EINVAL)
            assert overlaps or not allowed
            continue
        assert allowed
        assert not overlaps
        memory.set(key, wanted)
        expected[key] = pages
        if deleted:
            del expected[key]


def test_thousands_of_ranges_and_slots_take_no_longer_each() -> None:
    """Were each call's time that of all ranges, this would take minutes."""
    memory = GuestMemory()
    many = 30_000
    for at in range(many):
        memory.set_private(2 * at * PAGE, (2 * at + 1) * PAGE, private=True)
        memory.check(at, slot := Slot(at * PAGE, PAGE, GUEST_MEMFD, 0), protected=True, spaces=1)
        memory.set(at, slot)
    assert len(list(memory.private)) == len(memory.slots) == many
    for at in range(many):
        assert memory.populatable(at * PAGE, (at + 1) * PAGE) == (at + 1 - at % 2) * PAGE
        memory.set(at, Slot(0, 0, 0, 0))
    memory.set_private(0, 2 * many * PAGE, private=False)
    assert not list(memory.private)
    assert not memory.slots


def test_a_slot_has_no_more_pages_than_the_kernel_can_number() -> None:
    memory = GuestMemory()
    most = (1 << 31) - 1
    memory.check(0, Slot(0, most * PAGE, 1, 0), protected=True, spaces=1)
    with pytest.raises(Rejected, match="at most 0x7fffffff pages"):
        memory.check(0, Slot(0, (most + 1) * PAGE, 1, 0), protected=True, spaces=1)


def test_a_slot_ends_where_physical_addresses_end() -> None:
    memory = GuestMemory(46)
    memory.check(0, Slot((1 << 46) - PAGE, PAGE, 0, 0), protected=True, spaces=1)
    with pytest.raises(Rejected, match="physical addresses end at 0x400000000000"):
        memory.check(0, Slot((1 << 46) - PAGE, 2 * PAGE, 0, 0), protected=True, spaces=1)
