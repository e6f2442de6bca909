"""The patch series: well-formed, and it applies to the source it is made from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.qemu.builder import patches
from plugin.qemu.builder.apply import apply
from plugin.qemu.builder.source import RELEASE
from plugin.qemu.trouble import cache_folder

COMMANDS = (
    "x-query-tdx-config-cpuid",
    "x-query-tdx-requested-cpuid",
    "x-query-tdx-vcpu-cpuid",
    "x-tdx-set-cpuid-choices",
)
SERIES = patches.load(patches.FOLDER)


def test_patches_are_numbered_and_signed_off() -> None:
    for number, path in enumerate(SERIES.patches, 1):
        text = path.read_text()
        assert re.search(rf"^Subject: \[PATCH 0?{number}/{len(SERIES.patches)}\] ", text, re.MULTILINE), path.name
        assert re.search(r"^Signed-off-by: .+ <.+>$", text, re.MULTILINE), path.name


def test_it_is_for_the_release_that_is_built_by_default() -> None:
    assert RELEASE in SERIES.releases
    assert [patches.release_of(version) for version in ("10.2.2", "11.1.50")] == ["10.2", "11.1"]


def test_a_fix_removes_a_line_by_which_its_bug_is_known(tmp_path: Path) -> None:
    by_name = {patch.name: patch for patch in SERIES.patches}
    for name in SERIES.fixes:
        removed = patches.REMOVED_LINE.findall(by_name[name].read_text())
        assert removed, f"{name}: a tree that has mended it could not be told from others"
        [file] = patches.old_files(by_name[name])
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("\n".join(removed))
        assert patches.still_needed(by_name[name], tmp_path)
        (tmp_path / file).write_text("mended\n")
        assert not patches.still_needed(by_name[name], tmp_path)


def old_texts(patch: Path) -> Iterator[tuple[str, str]]:
    """What each hunk of a patch is recognized by, with the file; none for a file that it creates."""
    for file in re.split(r"^diff --git .*\n", patch.read_text(), flags=re.MULTILINE)[1:]:
        name = re.search(r"^--- a/(\S+)$", file, re.MULTILINE)
        for hunk in re.split(r"^@@ .*\n", file, flags=re.MULTILINE)[1:] if name else []:
            assert name
            yield name[1], "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in " -")


@pytest.mark.e2e
def test_the_series_applies_in_order(tmp_path: Path) -> None:
    """To the files it touches, of the source that scripts/build-qemu downloaded; each hunk to one place only."""
    downloads = cache_folder() / "qemu" / "downloads"
    original = next(downloads.glob(f"*-{RELEASE}/qemu_*.orig.tar.xz"), None)
    assert original, "scripts/build-qemu has not downloaded QEMU's source"
    wanted = {"VERSION", *(name for patch in SERIES.patches for name in patches.old_files(patch))}
    tree = tmp_path / "tree"
    tree.mkdir()
    created = {"stubs/qmp-i386-tdx.c", "target/i386/kvm/tdx-cpuid.c"}
    names = [f"*/{name}" for name in wanted - created]
    choose = ["--strip-components=1", "--wildcards", "--no-wildcards-match-slash"]
    subprocess.run(["tar", "-xf", original, "-C", tree, *choose, *names], check=True)
    log = tmp_path / "log"
    for patch in SERIES.patches:
        for name, text in old_texts(patch):
            content = (tree / name).read_text()
            places = f"\n{content}".count(f"\n{text}")
            assert places == 1 or content.endswith(f"\n{text}"), f"{patch.name}: {name}: fits {places} places:\n{text}"
        apply(patches.Series([patch], SERIES.releases, []), tree, log)
    assert patches.has_commands(tree)
    schema = (tree / patches.COMMANDS_FILE).read_text()
    for command in COMMANDS:
        assert f"'command': '{command}'" in schema
