"""The pages that work something out are run, so that they cannot go stale."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from plugin.tdx_module import published_names

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["how-it-decides.md", "how-to/add-a-module-version.md"])
def test_a_page_says_what_the_code_does(page: str) -> None:
    result = doctest.testfile(str(DOCS / page), module_relative=False, encoding="utf-8")
    assert result.attempted > 0
    assert result.failed == 0


def test_a_bit_of_every_cause_is_worked_out() -> None:
    headings = [line for line in (DOCS / "how-it-decides.md").read_text().splitlines() if line.startswith("## ")]
    causes = ("configured", "fixed-0", "fixed-1", "native", "xfam[", "attributes.", "module-rule", "dynamic", "ve:")
    for cause in (*causes, "kvm-filtered", "kvm-unknown", "qemu-dropped", "vcpu-differs"):
        assert any(cause in heading for heading in headings), cause


def test_the_guide_names_the_newest_versions() -> None:
    text = (DOCS / "how-to" / "add-a-module-version.md").read_text()
    assert published_names()[-1] in text
