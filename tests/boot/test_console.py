"""A guest's console, whatever the guest writes and however it arrives."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmp_client.boot.console import LONGEST_LINE, Console, clean

KEPT = 1 << 16


def fed(*parts: bytes, pattern: str = "", kept: int = KEPT) -> Console:
    console = Console(pattern, kept)
    for part in parts:
        console.feed(part)
    return console


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"login: ", b"\x1b[1;32m", b"\xc3\xbc", b"\xff", b"up", b"\x1b]0;t\x07"])),
    st.lists(st.integers(0, 60)),
)
def test_how_the_bytes_are_cut_does_not_matter(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    once, bit_by_bit = fed(whole, pattern="login: .*up"), fed(*pieces, pattern="login: .*up")
    assert (once.text, once.written) == (bit_by_bit.text, bit_by_bit.written)
    assert once.found.is_set() == bit_by_bit.found.is_set()


@given(st.binary(max_size=3000), st.integers(1, 200))
def test_what_is_kept_is_the_end_and_bounded(written: bytes, kept: int) -> None:
    everything, some = fed(written, kept=1 << 20), fed(written, kept=kept)
    assert len(some.text) <= kept
    assert everything.text.endswith(some.text)
    assert len(some.text) == min(kept, len(everything.text))


def test_a_prompt_that_no_line_end_follows_is_found() -> None:
    console = fed(b"Debian GNU/Linux 13 td ttyS0\r\n\r\ntd login: ", pattern=r"login: $")
    assert console.found.is_set()
    assert console.line == "td login: "


def test_the_line_that_was_found_is_the_whole_line() -> None:
    console = fed(b"[  OK  ] Reached targ", pattern="Reached")
    assert console.found.is_set()
    console.feed(b"et multi-user\r\nand more\r\nReached again\r\n")
    assert console.line == "[  OK  ] Reached target multi-user"


def test_colours_and_cursor_movements_do_not_hide_a_line() -> None:
    console = fed(
        b"\x1b[2J\x1b[001;001H\x1b[=3h[\x1b[0;32m  OK  \x1b[0m] Rea\x1b[Kched\r\n", pattern=r"\[  OK  \] Reached"
    )
    assert console.line == "[  OK  ] Reached"


def test_a_line_without_end_does_not_grow_for_ever() -> None:
    console = fed(*[b"x" * 1000] * 1000, pattern="y")
    assert console.written == 1_000_000
    assert max(map(len, console.text.splitlines())) <= LONGEST_LINE
    assert len(console.text) <= KEPT


def test_it_is_searched_line_by_line() -> None:
    assert not fed(b"one\ntwo\n", pattern="one.*two").found.is_set()
    assert not fed(b"one\ntwo\n", pattern=r"one\s+two").found.is_set()
    assert fed(b"zero\none two\n", pattern="^one two$").found.is_set()


@pytest.mark.parametrize("text", ["\x00a\x07b", "\x1b[31ma\x1b[0mb", "a\x1b(Bb", "\x9ba\x7fb", "a\x1b]8;;x\x1b\\b"])
def test_nothing_that_moves_a_terminal_is_left(text: str) -> None:
    assert clean(text) == "ab"


def test_a_pattern_that_is_none_is_an_error() -> None:
    with pytest.raises(re.error):
        Console("(", KEPT)
