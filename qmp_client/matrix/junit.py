"""A matrix as JUnit XML, which every CI system shows: a suite per host, a case per model and machine type. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from qmp_client.matrix.result import Cell, Result
from qmp_client.report.policy import Policy

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold; QEMU's messages quote what the user typed."""


def render(results: Sequence[Result], policy: Policy) -> bytes:
    """The XML document. ``failure`` is a TD that does not meet the policy, ``error`` a cell without a report."""
    root = ElementTree.Element("testsuites", name="tdx-cpuid matrix")
    suites: dict[str, list[Result]] = {}
    for result in results:
        suites.setdefault(_suite(result.cell), []).append(result)
    for name, members in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(name), **_counts(members)})
        for result in members:
            suite.append(_case(result, policy))
    for name, value in _counts(results).items():
        root.set(name, value)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(cell: Cell) -> str:
    return f"{cell.qemu} · module {cell.module} · {cell.platform} · {cell.kvm}"


def _counts(results: Sequence[Result]) -> dict[str, str]:
    return {
        "tests": str(len(results)),
        "failures": str(sum(r.report is not None and r.exit_code != 0 for r in results)),
        "errors": str(sum(r.report is None for r in results)),
        "time": f"{sum(r.seconds for r in results):.3f}",
    }


def _case(result: Result, policy: Policy) -> ElementTree.Element:
    cell = result.cell
    case = ElementTree.Element(
        "testcase",
        classname=_clean(f"{cell.machine}.{cell.module}.{cell.platform}"),
        name=_clean(f"{cell.cpu}, smp {cell.smp}"),
        time=f"{result.seconds:.3f}",
    )
    if result.report is None:
        ElementTree.SubElement(
            case, "error", message=_clean(result.error or ""), type=f"exit status {result.exit_code}"
        )
    elif result.exit_code:
        failing = [line for line in result.report.lines if policy.fails(line)]
        failure = ElementTree.SubElement(
            case, "failure", message=f"{len(failing)} lines fail the policy", type="policy"
        )
        failure.text = _clean(
            "\n".join(
                f"{line.where} {line.name}: asked {line.asked}, got {line.got}, {line.verdict} ({line.cause})"
                for line in failing
            )
        )
    return case


def _clean(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
