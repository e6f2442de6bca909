"""Private ranges against a plain set of pages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
