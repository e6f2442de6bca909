"""The patch series: well-formed, and it applies to the source it is for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from plugin.qemu.builder import patches
from plugin.qemu.trouble import cache_folder

COMMANDS = (
    "x-query-tdx-config-cpuid",
    "x-query-tdx-requested-cpuid",
    "x-query-tdx-vcpu-cpuid",
    "x-tdx-set-cpuid-choices",
)


@pytest.mark.parametrize("release", patches.releases())
def test_patches_are_numbered_and_signed_off(release: str) -> None:
    series = patches.series(release)
    for number, path in enumerate(series, 1):
        text = path.read_text()
        assert re.search(rf"^Subject: \[PATCH 0?{number}/{len(series)}\] ", text, re.MULTILINE), path.name
        assert re.search(r"^Signed-off-by: .+ <.+>$", text, re.MULTILINE), path.name


def files_before(series: list[Path]) -> set[str]:
    """What a series changes, without what it creates itself."""
    text = "".join(path.read_text() for path in series)
    changed = set(re.findall(r"^--- a/(\S+)$", text, re.MULTILINE))
    return changed - set(re.findall(r"^--- /dev/null\n\+\+\+ b/(\S+)$", text, re.MULTILINE))


@pytest.mark.e2e
def test_the_series_applies_in_order(tmp_path: Path) -> None:
    """To the files it touches, of the source that scripts/build-qemu downloaded."""
    downloads = cache_folder() / "qemu" / "downloads"
    original = next(downloads.glob("*-10.2/qemu_*.orig.tar.xz"), None)
    assert original, "scripts/build-qemu has not downloaded QEMU's source"
    wanted = {"VERSION"} | files_before(patches.series("10.2"))
    tree = tmp_path / "tree"
    tree.mkdir()
    names = [f"*/{name}" for name in wanted]
    choose = ["--strip-components=1", "--wildcards", "--no-wildcards-match-slash"]
    subprocess.run(["tar", "-xf", original, "-C", tree, *choose, *names], check=True)
    log = tmp_path / "log"
    patches.apply(tree, log)
    schema = (tree / "qapi" / "misc-i386.json").read_text()
    for command in COMMANDS:
        assert f"'command': '{command}'" in schema
    if (tree / "VERSION").read_text() == "10.2.2\n":  # the release that the series is made from
        assert "with fuzz" not in log.read_text()
