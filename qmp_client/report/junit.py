"""JUnit XML, which every CI system shows: suites of cases, each with what is wrong with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple
from xml.etree import ElementTree

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold; QEMU's messages quote what the user typed."""


class Problem(NamedTuple):
    """What is wrong with a case."""

    kind: Literal["failure", "error"]
    """``failure``: not as it was wanted; ``error``: it could not be found out."""
    message: str
    type: str = ""
    text: str = ""


class Case(NamedTuple):
    """One thing that was looked at."""

    classname: str
    name: str
    problem: Problem | None = None
    said: str = ""
    """What there is to say of a case with which nothing is wrong."""
    seconds: float | None = None
    """None where nobody measured."""


class Suite(NamedTuple):
    """Cases that belong together."""

    name: str
    cases: Sequence[Case]


def one(suite: Suite) -> bytes:
    """The document of one suite."""
    return _document(_suite(suite))


def several(name: str, suites: Sequence[Suite]) -> bytes:
    """The document of several suites, under a name for all of them."""
    root = ElementTree.Element("testsuites", _attributes(name, [case for suite in suites for case in suite.cases]))
    root.extend(map(_suite, suites))
    return _document(root)


def _suite(suite: Suite) -> ElementTree.Element:
    element = ElementTree.Element("testsuite", _attributes(suite.name, suite.cases))
    element.extend(map(_case, suite.cases))
    return element


def _attributes(name: str, cases: Sequence[Case]) -> dict[str, str]:
    kinds = [case.problem.kind for case in cases if case.problem]
    counts = {"tests": len(cases), "failures": kinds.count("failure"), "errors": kinds.count("error")}
    measured = [case.seconds for case in cases if case.seconds is not None]
    time = {"time": f"{sum(measured):.3f}"} if len(measured) == len(cases) else {}
    return {"name": _clean(name), **{what: str(number) for what, number in counts.items()}, **time}


def _case(case: Case) -> ElementTree.Element:
    attributes = {"classname": _clean(case.classname), "name": _clean(case.name)}
    if case.seconds is not None:
        attributes["time"] = f"{case.seconds:.3f}"
    element = ElementTree.Element("testcase", attributes)
    if case.problem:
        what = {"message": _clean(case.problem.message)}
        what |= {"type": _clean(case.problem.type)} if case.problem.type else {}
        ElementTree.SubElement(element, case.problem.kind, what).text = _clean(case.problem.text)
    elif case.said:
        ElementTree.SubElement(element, "system-out").text = _clean(case.said)
    return element


def _document(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _clean(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
