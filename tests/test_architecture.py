"""docs/architecture.md against the code: every folder has its row, every path is there; and the check notices."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("plugin", "qmp_client")


def rows() -> list[str]:
    """The folders and files of the table's rows."""
    section = PAGE.read_text().partition("## The folders")[2].partition("\n## ")[0]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [folder for cell in first for folder in re.findall(r"`([^`]+)`", cell)]


def folders() -> set[str]:
    return {str(file.parent.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py")}


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_every_folder_has_one_row() -> None:
    assert sorted(row for row in rows() if not row.endswith(".py")) == sorted(folders())


@pytest.mark.parametrize("page", sorted(str(page.relative_to(ROOT)) for page in pages()))
def test_what_a_page_names_and_links_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:plugin|qmp_client|scripts|tests|docs)/[a-z\d_./-]*)`", text)
    links = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", text)
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_no_module_is_in_a_circle() -> None:
    """import-linter looks among the parts of a room; this one also sees a room and its part import each other."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while ready := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in ready}
    assert sorted(left) == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code and its contracts, to be broken."""
    here = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, here / package, ignore=lambda _, names: [n for n in names if "." in n[:-3]])
    shutil.copy(ROOT / ".importlinter", here)
    return here


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("plugin/cpuid/leaf.py", "import qmp_client.errors", "plugin never imports qmp_client"),
        ("plugin/tdx_module/td.py", "def late():\n    import plugin.kvm.host", "plugin: kvm"),
        ("qmp_client/qmp/wire.py", "if TYPE_CHECKING:\n    import qmp_client.negotiation.run", "qmp_client: from"),
        ("plugin/kvm/device/vcpu.py", "if TYPE_CHECKING:\n    import plugin.kvm.device.vm", "No circle"),
        ("qmp_client/reconcile/verdict.py", "import socket", "do no I/O"),
        ("qmp_client/matrix/grid.py", "import qmp_client.qmp.session", "QMP is negotiation's"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    before = (copy / file).read_text()
    (copy / file).write_text(f"{before}\n{line}\n")
    linter = Path(sys.executable).with_name("lint-imports")
    command = [str(linter), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    (copy / file).write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text]
    assert any(contract in text for text in broken), done.stdout
