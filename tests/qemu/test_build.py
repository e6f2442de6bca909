"""scripts/build-qemu as a whole, on a tree that configures and compiles in an instant."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from plugin.qemu.builder import patches
from plugin.qemu.builder.__main__ import build_inputs
from plugin.qemu.builder.compile import DEVICES, SUBPROJECTS
from plugin.qemu.builder.requirements import REQUIREMENTS, explain, missing
from plugin.qemu.builder.source import OwnTree
from tests.waiting import PATIENCE

BUILD_QEMU = Path(__file__).resolve().parents[2] / "scripts" / "build-qemu"

CONFIGURE = """#!/bin/sh
test -f ../configs/devices/x86_64-softmmu/tdx-cpuid.mak || exit 1
cat > build.ninja <<'EOF'
rule copy
  command = cp $in $out
  description = Linking $out
build qemu-system-x86_64: copy ../emulator
EOF
"""
OPTION_ROMS = "kvmvapic.bin linuxboot_dma.bin:\n\ttouch $@\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that has the shape of QEMU's."""
    content = {
        "configure": CONFIGURE,
        "VERSION": "10.2.2\n",
        "emulator": "first",
        "qapi/misc-i386.json": "{ 'command': 'x-query-tdx-config-cpuid' }\n",
        "configs/devices/x86_64-softmmu/default.mak": "",
        "pc-bios/optionrom/Makefile": OPTION_ROMS,
        "build-of-mine/meson-private/cmd_line.txt": "big",
        **{f"subprojects/{name}/README": "" for name in SUBPROJECTS},
    }
    root = tmp_path / "tree"
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "configure").chmod(0o755)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has the Python to configure with: nothing is fetched here."""
    folder = tmp_path / "cache" / "tdx-cpuid" / "qemu"
    for minor in range(11, 20):
        python = folder / f"python-3.{minor}"
        python.mkdir(parents=True)
        (python / "complete").touch()
    return folder


def build(cache: Path, *arguments: str | Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache.parents[1])}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run([BUILD_QEMU, *arguments], env=environment, capture_output=True, text=True, check=False)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_tree_is_built_into_the_cache_and_stays_as_it_is(tree: Path, cache: Path) -> None:
    before = snapshot(tree)
    done = build(cache, "--source", tree, "--print-path")
    assert done.returncode == 0, done.stderr
    binary = Path(done.stdout.strip())
    assert binary.read_text() == "first"
    assert binary == cache / binary.parts[-3] / "bin" / "qemu-system-x86_64"
    assert (binary.parents[1] / "share" / "qemu" / "kvmvapic.bin").exists()
    assert (cache / "current" / "bin" / "qemu-system-x86_64").samefile(binary)
    assert snapshot(tree) == before


def test_the_same_tree_is_not_built_again_and_a_changed_one_is(tree: Path, cache: Path) -> None:
    first = build(cache, "--source", tree, "--print-path")
    again = build(cache, "--source", tree, "--print-path")
    assert again.stdout == first.stdout
    assert again.stderr == ""
    (tree / "emulator").write_text("second, and longer")
    changed = build(cache, "--source", tree, "--print-path")
    assert changed.stdout != first.stdout
    assert Path(changed.stdout.strip()).read_text() == "second, and longer"
    assert Path(first.stdout.strip()).read_text() == "first"


def test_a_tree_that_does_not_compile_leaves_its_log_only(tree: Path, cache: Path) -> None:
    (tree / "emulator").unlink()
    done = build(cache, "--source", tree, "--print-path")
    assert done.returncode == 4
    assert done.stdout == ""
    assert "compiling QEMU failed" in done.stderr
    assert "emulator" in done.stderr
    left = {path.suffix for path in cache.iterdir() if not path.name.startswith("python-")}
    assert left == {".log", ".lock"}


def test_a_build_that_is_ended_leaves_its_log_only(tree: Path, cache: Path) -> None:
    (tree / "emulator").unlink()
    os.mkfifo(cache / "emulator")
    (tree / "emulator").symlink_to(cache / "emulator")  # compiling waits here
    with (
        subprocess.Popen(
            [BUILD_QEMU, "--source", tree], env={**os.environ, "XDG_CACHE_HOME": str(cache.parents[1])}
        ) as process,
        (cache / "emulator").open("wb"),
    ):  # opened once somebody reads
        process.terminate()
        assert process.wait(PATIENCE) == 143
    assert not list(cache.glob("*.building"))


@pytest.fixture
def unpatched(tree: Path) -> Path:
    """The same tree, which has TDX and no commands; no patch fits its few files."""
    (tree / "qapi" / "misc-i386.json").write_text("")
    (tree / "target" / "i386" / "kvm").mkdir(parents=True)
    (tree / "target" / "i386" / "kvm" / "tdx.c").touch()
    return tree


def test_patches_that_do_not_fit_are_named(unpatched: Path, cache: Path) -> None:
    done = build(cache, "--source", unpatched)
    assert done.returncode == 3
    assert "the patches do not fit this tree, which is QEMU 10.2.2 (they were made for 10.1, 10.2" in done.stderr
    assert "0004-" in done.stderr
    assert "qapi/misc-i386.json hunk 1 failed at line" in done.stderr
    assert "build that tree with --source" in done.stderr


def test_a_release_that_is_not_known_is_said(unpatched: Path, cache: Path) -> None:
    (unpatched / "VERSION").write_text("13.0.50\n")
    done = build(cache, "--source", unpatched)
    assert done.returncode == 3
    assert "no patch series was made for QEMU 13.0.50 (there is one for 10.1, 10.2" in done.stderr
    assert "the patches do not fit this tree, which is QEMU 13.0.50" in done.stderr


def test_a_clone_without_its_subprojects_is_told_how_to_get_them(tree: Path, cache: Path) -> None:
    (tree / "subprojects" / "keycodemapdb" / "README").unlink()
    done = build(cache, "--source", tree)
    assert done.returncode == 3
    assert "the tree lacks subprojects/keycodemapdb; nothing is downloaded" in done.stderr
    assert "meson subprojects download keycodemapdb\n" in done.stderr


def test_a_release_without_tdx_is_refused(unpatched: Path, cache: Path) -> None:
    (unpatched / "VERSION").write_text("9.2.4\n")
    (unpatched / "target" / "i386" / "kvm" / "tdx.c").unlink()
    (unpatched / "qapi" / "misc-i386.json").unlink()
    done = build(cache, "--source", unpatched)
    assert done.returncode == 3
    assert "QEMU 9.2.4 knows no TDX: it takes QEMU 10.1 or newer" in done.stderr


def test_what_is_built_depends_on_the_patches_that_are_applied(tree: Path) -> None:
    series = patches.load(patches.FOLDER)
    assert build_inputs(series, None) == [*series.patches, DEVICES]
    assert build_inputs(series, tree) == [DEVICES], "a tree with the commands is built as it is"
    (tree / "qapi" / "misc-i386.json").write_text("")
    without_fixes = [patch for patch in series.patches if patch.name not in series.fixes]
    assert build_inputs(series, tree) == [*without_fixes, DEVICES], "the tree has none of the lines that they remove"


def test_a_tarball_is_built(tree: Path, cache: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "qemu-10.2.2.tar.xz"
    with tarfile.open(tarball, "w:xz") as archive:
        archive.add(tree, "qemu-10.2.2")
    done = build(cache, "--tarball", tarball, "--print-path")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_text() == "first"


def test_firmware_that_a_distribution_leaves_out_is_not_missed(tree: Path, cache: Path) -> None:
    """Its name stands in pc-bios, and configure looks for the file."""
    pc_bios = tree / "pc-bios"
    (pc_bios / "dtb").mkdir()
    (pc_bios / "meson.build").write_text("fds = [\n  'edk2-x86_64-code.fd',\n]\nblobs = [\n  'bios.bin',\n]\n")
    (pc_bios / "dtb" / "meson.build").write_text("dtbs = [\n  'bamboo.dtb',\n]\n")
    wanted = ("edk2-x86_64-code.fd.bz2", "dtb/bamboo.dtb", "dtb/bamboo.dts")
    look = "".join(f"test -f ../pc-bios/{name} || exit 1\n" for name in wanted)
    (tree / "configure").write_text(CONFIGURE.replace("cat >", f"{look}cat >", 1))
    done = build(cache, "--source", tree, "--print-path")
    assert done.returncode == 0, done.stderr
    assert not (pc_bios / wanted[0]).exists()


def test_a_tarball_that_cannot_be_read_is_named(cache: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "broken.tar.xz"
    tarball.write_bytes(b"no tarball")
    done = build(cache, "--tarball", tarball)
    assert done.returncode == 4
    assert f"unpacking {tarball} failed" in done.stderr


def test_a_tarball_of_something_else_is_refused(cache: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "other.tar"
    with tarfile.open(tarball, "w") as archive:
        archive.addfile(tarfile.TarInfo("other/README"), io.BytesIO())
    done = build(cache, "--tarball", tarball)
    assert done.returncode == 4
    assert "does not look like QEMU's source" in done.stderr


def test_a_tree_that_cannot_be_copied_is_told_the_file(tree: Path, cache: Path) -> None:
    os.mkfifo(tree / "pipe")
    done = build(cache, "--source", tree)
    assert done.returncode == 4
    assert f"copying the tree failed, at {tree / 'pipe'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_written_is_named(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = build(tmp_path / "file" / "tdx-cpuid" / "qemu", "--source", tree)
    assert done.returncode == 4
    assert f"the cache is {tmp_path / 'file' / 'tdx-cpuid'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--source", "--tarball"])
def test_a_source_that_is_not_there_is_said(cache: Path, option: str) -> None:
    done = build(cache, option, "/nonexistent/qemu")
    assert done.returncode == 3
    assert "/nonexistent/qemu" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bare_machine_is_told_what_to_install(tree: Path, cache: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for program in ("bash", "dirname", "python3"):
        (bare / program).symlink_to(subprocess.check_output(["which", program], text=True).strip())
    done = build(cache, "--source", tree, path=str(bare))
    assert done.returncode == 3
    assert "sudo apt-get install gcc libc6-dev make ninja-build patch pkg-config" in done.stderr


def test_what_is_missing_is_named_with_its_package() -> None:
    lacking = [requirement for requirement in REQUIREMENTS if requirement.name in ("ninja", "glib-2.0")]
    text = explain(lacking)
    assert "ninja, glib-2.0" in text
    assert "apt-get install ninja-build libglib2.0-dev" in text


def test_nothing_is_missing_where_qemu_was_built() -> None:
    assert missing(REQUIREMENTS) == []


def test_a_git_tree_is_known_by_its_commit_and_what_differs(tree: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@x.invalid"]
        subprocess.run(["git", "-C", tree, *who, *arguments], check=True, capture_output=True)

    git("init")
    git("add", "-A")
    git("commit", "-m", "all")
    identities = [OwnTree(tree).identity()]
    assert OwnTree(tree).identity() == identities[0]
    (tree / "emulator").write_text("other")
    identities.append(OwnTree(tree).identity())
    (tree / "new.c").write_text("int x;")
    identities.append(OwnTree(tree).identity())
    git("add", "-A")
    git("commit", "-m", "more")
    identities.append(OwnTree(tree).identity())
    assert len(set(identities)) == 4
