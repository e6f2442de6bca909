"""The page as text: small, the same every time, and nothing in it that the data could have written."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS
from plugin.cpuid.values import say
from qmp_client import page
from qmp_client.matrix.result import Result
from qmp_client.page.pack import FAILS, Json, pack
from qmp_client.reconcile.verdict import Line
from tests.html.grids import POLICY, cell, failed, large, line, result, small

TEXT = st.text(max_size=30) | st.sampled_from(
    ["</script><img src=x onerror=pwned()>", "<!--<script>", "&lt;b&gt;", "\u2028\u2029", "\ud800", "]]>", "'\"\\", ""]
)


def render(results: list[Result]) -> str:
    return page.render([page.of_result(each) for each in results], POLICY)


def packed(results: list[Result]) -> dict[str, Json]:
    return pack([page.of_result(each) for each in results], POLICY)


def data_of(text: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block
    data: dict[str, Any] = json.loads(block[1])
    return data


def unpacked(data: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    """Every cell's lines, read back from the differences."""
    cells: list[set[int]] = []
    for _, _, _, error, *rest in data["cells"]:
        own: set[int] = set()
        if error == -1:
            _, base, steps = rest
            own = set(cells[base]) if base >= 0 else set()
            number = 0
            for step in steps:
                number += step
                own ^= {number}
        cells.append(own)

    def text(number: int) -> str | None:
        return None if number < 0 else str(data["strings"][number])

    def said(number: int) -> tuple[Any, ...]:
        field, asked, chosen, got, guest, verdict, cause, special, _ = data["lines"][number]
        leaf, _, register, low, high, name, critical = data["fields"][field]
        place = (leaf, register, high, low, text(name), critical == 1)
        return (
            *place,
            *map(text, (asked, chosen, got, guest)),
            data["verdicts"][verdict][0],
            text(cause),
            bool(special & FAILS),
        )

    return [sorted(map(said, own), key=str) for own in cells]


def expected(results: list[Result]) -> list[list[tuple[Any, ...]]]:
    def said(each: Line) -> tuple[Any, ...]:
        width = each.high - each.low + 1
        values = (
            None if of is None else say(each.name, width, of) for of in (each.asked, each.chosen, each.got, each.guest)
        )
        place = (each.leaf, REGISTERS.index(each.register), each.high, each.low, each.name, each.critical)
        return (*place, *values, each.verdict.value, each.cause, POLICY.fails(each))

    return [sorted(map(said, found.report.lines if found.report else []), key=str) for found in results]


def test_every_line_of_every_cell_survives() -> None:
    results = [*small(), *large(models=2)]
    assert unpacked(data_of(render(results))) == expected(results)


@given(st.lists(st.lists(st.tuples(st.integers(0, 31), TEXT, TEXT), max_size=6), max_size=8))
def test_any_lines_survive(cells: list[list[tuple[int, str, str]]]) -> None:
    results = [
        result(cell(f"{number}"), *{bit: line(bit=bit, name=name, cause=cause) for bit, name, cause in lines}.values())
        for number, lines in enumerate(cells)
    ]
    assert unpacked(json.loads(json.dumps(packed(results)))) == expected(results)


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_text_leaves_its_place(cpu: str, name: str, cause: str, error: str) -> None:
    harmless = render([result(cell("c"), line(name="n", cause="x"), notes=["m"]), failed(cell("d"), "e")])
    hostile = render([result(cell(cpu), line(name=name, cause=cause), notes=[error]), failed(cell(error), cpu)])
    assert hostile.count("<script") == harmless.count("<script")
    assert hostile.count("</script") == harmless.count("</script")
    assert hostile.count("<img") == hostile.count("<!--") == 0
    assert data_of(hostile)["cells"][0][3] == -1
    hostile.encode()


def test_five_hundred_cells_stay_small() -> None:
    results = large()
    assert len(results) == 500
    lines = sum(len(found.report.lines) for found in results if found.report)
    assert lines > 500 * 150, "as many as real reports have"
    assert len(render(results).encode()) < 2_000_000


def test_the_same_results_give_the_same_page() -> None:
    assert render(large(models=3)) == render(large(models=3))


def test_nothing_in_the_page_points_anywhere() -> None:
    text = render(small())
    assert "http-equiv" in text
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(", text)


def test_qemu_binaries_are_called_by_what_tells_them_apart() -> None:
    def names(*paths: str) -> list[str]:
        data = packed([failed(cell(qemu=path)) for path in paths])
        axes: Any = data["axes"]
        strings: Any = data["strings"]
        cells: Any = data["cells"]
        return [strings[each[0][axes.index("QEMU")]] for each in cells]

    assert names("/opt/10.1/bin/qemu", "/opt/10.2/bin/qemu") == ["10.1", "10.2"]
    assert names("/opt/10.1/bin/qemu", "/opt/10.1/bin/qemu") == ["qemu", "qemu"]
    assert names("/a/qemu", "/a/b/qemu") == ["/a/qemu", "/a/b/qemu"]
    assert names("patched", "/usr/bin/stock") == ["patched", "/usr/bin/stock"]


def test_a_cell_without_report_or_error_is_said_to_have_none() -> None:
    nothing = Result(cell(), 0.0, None, None, 4)
    assert "no report" in data_of(render([nothing]))["strings"]
