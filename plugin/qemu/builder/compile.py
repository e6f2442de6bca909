"""configure, ninja and the little that is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from plugin.qemu.builder.cache import locked
from plugin.qemu.trouble import Missing, Trouble, last_lines, run, say

DEVICES = Path(__file__).resolve().parents[1] / "devices.mak"
DEVICES_NAME = "tdx-cpuid"

FLAGS = (
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--without-default-devices",
    f"--with-devices-x86_64={DEVICES_NAME}",
    "--enable-system",
    "--enable-kvm",
    "--enable-tcg",
    "--disable-docs",
    "--disable-fdt",
    "--disable-guest-agent",
    "--disable-tools",
    "--disable-install-blobs",
    "--disable-debug-info",
    "--disable-werror",
    "--disable-download",
)

PYTHON_PACKAGES = ("meson>=1.5,<2", "pycotap>=1.1", "qemu.qmp>=0.0.5", "setuptools", "wheel")
"""What configure wants, of one release or another. Tarballs bring the most of it; a distribution's may bring none."""
SUBPROJECTS = ("keycodemapdb", "berkeley-softfloat-3", "berkeley-testfloat-3")
"""Sources that QEMU keeps elsewhere: release tarballs have them, a clone once they were downloaded."""

FIRMWARE = re.compile(r"'([\w-]+)\.(fd|dtb)'")
TARGET = "qemu-system-x86_64"
STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")


def private_python(cache: Path, log: Path) -> Path:
    """Return a Python that has what configure wants, from a virtual environment in the cache. Raises Trouble.

    Debian 12 and Ubuntu 24.04 have a meson that is too old for QEMU.
    """
    folder = cache / f"python-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python3"
    with locked(cache / f"{folder.name}.lock", "another build is fetching meson and more: waiting for it"):
        if not (folder / "complete").exists():
            say("fetching meson and more that configure wants")
            shutil.rmtree(folder, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(folder)], log=log, what="making a virtual environment")
            run(
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PYTHON_PACKAGES],
                log=log,
                what=f"pip install {' '.join(PYTHON_PACKAGES)}",
            )
            (folder / "complete").touch()
    return python


def configure(tree: Path, python: Path, log: Path) -> Path:
    """Configure the tree; return its build folder. Raises Missing for a tree without its sub-projects, or Trouble."""
    lacking = [name for name in SUBPROJECTS if not next((tree / "subprojects" / name).glob("*"), None)]
    if lacking:
        raise Missing(
            f"the tree lacks {', '.join(f'subprojects/{name}' for name in lacking)}; nothing is downloaded for it.\n"
            f"In a clone of QEMU's repository: meson subprojects download {' '.join(lacking)}\n"
            "(release tarballs of QEMU have them; what `git archive` or a hosting site packs does not)"
        )
    stand_in_for_firmware(tree / "pc-bios")
    shutil.copyfile(DEVICES, tree / "configs" / "devices" / "x86_64-softmmu" / f"{DEVICES_NAME}.mak")
    build = tree / "build-tdx-cpuid"
    build.mkdir()
    say("configuring QEMU")
    run(["../configure", *FLAGS, f"--python={python}"], cwd=build, log=log, what="QEMU's configure")
    return build


def stand_in_for_firmware(folder: Path) -> None:
    """Create what a distribution leaves out of its tarball and QEMU's configure looks for; nothing here is built of it.

    These are packed edk2 images, and device trees of other machines with their sources.
    """
    for meson in (folder / "meson.build", folder / "dtb" / "meson.build"):
        for name, kind in FIRMWARE.findall(meson.read_text() if meson.exists() else ""):
            for suffix in (".fd.bz2",) if kind == "fd" else (".dtb", ".dts"):
                (meson.parent / f"{name}{suffix}").touch()


def compile_emulator(build: Path, log: Path) -> None:
    """Run ninja for the emulator alone, showing how far it is. Raises Trouble with the compiler's message."""
    start = log.stat().st_size
    progress = Progress(interactive=sys.stderr.isatty())
    environment = {**os.environ, "NINJA_STATUS": "[%f/%t] ", "TERM": "dumb"}
    with (
        log.open("ab") as output,
        subprocess.Popen(
            ["ninja", TARGET], cwd=build, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as ninja,
    ):
        assert ninja.stdout
        try:
            for line in ninja.stdout:
                output.write(line)
                progress.show(line.decode(errors="replace").rstrip())
        except BaseException:
            ninja.terminate()
            ninja.wait()  # nobody writes into the tree while it is removed
            raise
    progress.end()
    if ninja.returncode:
        raise Trouble(f"compiling QEMU failed:\n{last_lines(log, start)}\n(all of it: {log})")


class Progress:
    """ninja's steps: one line that changes on a terminal, a line every ten per cent elsewhere."""

    def __init__(self, *, interactive: bool) -> None:
        self._interactive = interactive
        self._told = -1
        self._width = 0

    def show(self, line: str) -> None:
        """Take one line of ninja's output."""
        step = STEP.match(line)
        if not step:
            return
        done, total = int(step[1]), int(step[2])
        if self._interactive:
            text = f"compiling QEMU [{done}/{total}] {step[3]}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        elif (tenth := done * 10 // total) > self._told:
            self._told = tenth
            say(f"compiling QEMU: {tenth * 10}% of {total} steps")

    def end(self) -> None:
        """Leave the line."""
        if self._interactive:
            print(file=sys.stderr)


def stage(tree: Path, build: Path, finished: Path, python: Path, log: Path) -> None:
    """Lay out what QEMU needs at run time below ``finished``: bin/ and share/qemu/.

    The binary is not stripped: who decides a bit is found out by looking at its code, too.
    """
    data = finished / "share" / "qemu"
    data.mkdir(parents=True)
    (finished / "bin").mkdir()
    shutil.copy2(build / TARGET, finished / "bin" / TARGET)
    for name in option_roms(tree, build / "option-roms", python, log):
        shutil.copyfile(name, data / name.name)


def option_roms(tree: Path, folder: Path, python: Path, log: Path) -> list[Path]:
    """Build the small ROMs that Q35 loads; Debian's tarball has none of the ready ones. Raises Trouble."""
    folder.mkdir()
    (folder / "config.mak").write_text(
        f"TOPSRC_DIR={tree}\nCC=cc\nOBJCOPY=objcopy\nPYTHON={python}\nTARGET_DIR=pc-bios/optionrom/\n"
    )
    roms = ["kvmvapic.bin", "linuxboot_dma.bin"]
    makefile = tree / "pc-bios" / "optionrom" / "Makefile"
    run(["make", "-f", str(makefile), *roms], cwd=folder, log=log, what="building the option ROMs")
    return [folder / rom for rom in roms]
