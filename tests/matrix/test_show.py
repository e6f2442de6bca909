"""What a matrix says: rows, counts, Markdown and JUnit XML."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_client.matrix import junit, show
from qmp_client.matrix.digest import digest
from qmp_client.matrix.result import Result
from qmp_client.matrix.run import MatrixResult
from qmp_client.reconcile.verdict import Verdict
from qmp_client.report import policy
from tests.matrix.results import bad, cell, good, line

POLICY = policy.parse("forced-off,altered,unasked")
MIXED = [
    good(cell("host", "pc-q35-10.1")),
    good(cell("host", "q35")),
    good(cell("EPYC", "pc-q35-10.1"), line("avx2", 5)),
    good(cell("EPYC", "q35"), line("avx2", 5), line("rtm", 11, Verdict.UNASKED)),
    bad(cell("486", "pc-q35-10.1")),
    bad(cell("486", "q35")),
]


def outcome(results: list[Result]) -> MatrixResult:
    return MatrixResult(results, 2.0, len(results), 2)


def test_same_outcomes_are_one_row() -> None:
    found = digest(MIXED, POLICY)
    assert [(row.block, row.cells, row.failing) for row in found.rows] == [
        ((("host",), ("pc-q35-10.1", "q35")), 2, 0),
        ((("EPYC",), ("pc-q35-10.1",)), 1, 1),
        ((("EPYC",), ("q35",)), 1, 2),
    ]
    assert [row.block for row in found.failed] == [(("486",), ("pc-q35-10.1", "q35"))]
    assert [(many.name, many.cells) for many in found.frequent] == [("avx2", 2), ("rtm", 1)]


@settings(deadline=None)
@given(st.lists(st.sampled_from(MIXED), min_size=1, unique_by=lambda result: result.cell))
def test_every_cell_is_counted_once(results: list[Result]) -> None:
    found = digest(results, POLICY)
    assert found.as_expected + found.unmet + found.without_report == len(results)
    assert sum(row.cells for row in (*found.rows, *found.failed)) == len(results)


def test_the_exit_status_is_that_of_the_worst_cell() -> None:
    assert outcome(MIXED[:2]).exit_code == 0
    assert outcome(MIXED[:4]).exit_code == 1
    assert outcome(MIXED).exit_code == 4


def test_the_summary_names_what_failed_and_why() -> None:
    out = io.StringIO()
    show.show(outcome(MIXED), POLICY, out)
    text = out.getvalue()
    assert "failed: 486 · pc-q35-10.1, q35: QEMU exited with status 1: no" in text
    assert "6 cells: 2 as expected, 2 not, 2 failed" in text
    assert "avx2" in text


def test_markdown_cannot_be_broken_by_a_message() -> None:
    text = show.markdown(outcome([bad(cell("a|b"), "one\ntwo | <b>three")]), POLICY)
    row = next(line for line in text.splitlines() if "three" in line)
    assert row.count("|") - row.count("\\|") == 4, "three cells"
    assert "<b>" not in text


def test_junit_counts_and_explains() -> None:
    root = ElementTree.fromstring(junit.render(MIXED, POLICY))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("6", "2", "2")
    failures = root.findall(".//failure")
    assert "0x7.0.ebx[5] avx2: asked 1, got 0, forced-off (fixed-0)" in (failures[0].text or "")
    assert len({(case.get("classname"), case.get("name")) for case in root.iter("testcase")}) == len(MIXED)


@settings(deadline=None)
@given(st.text())
def test_junit_is_xml_whatever_qemu_said(message: str) -> None:
    root = ElementTree.fromstring(junit.render([bad(cell(message), message)], POLICY))
    assert root.find(".//error") is not None


def test_one_cell_is_one() -> None:
    out = io.StringIO()
    show.show(outcome(MIXED[2:3]), POLICY, out)
    assert "\n1 cell    0x7.0" in out.getvalue()
    assert "1 cell: 0 as expected, 1 not" in out.getvalue()
