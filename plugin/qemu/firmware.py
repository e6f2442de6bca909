"""Get the TDVF image that a TD starts from: a package of the distribution's, or a file of the user's."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from plugin.qemu.distribution import Wanted, fetch
from plugin.qemu.trouble import Missing, cache_folder, end_with_trouble

PACKAGE = "ovmf-inteltdx"
IMAGE = Path("usr/share/ovmf/OVMF.inteltdx.ms.fd")
WANTED = Wanted(
    package=PACKAGE,
    version="",
    source=False,
    name=f"firmware package {PACKAGE}",
    instead="Give a TDVF image of your own: scripts/get-firmware --file FILE; other scripts take the one that"
    f" TDX_CPUID_FIRMWARE names. One that is installed is found at /{IMAGE}.",
)


def main(arguments: list[str]) -> None:
    """``scripts/get-firmware``: print the path of a TDVF image, fetching it if need be. Raises Trouble."""
    parser = argparse.ArgumentParser(
        prog="get-firmware",
        description="Print the path of a TDVF image (firmware for TDs). Takes an installed one, else fetches"
        f" the distribution's package {PACKAGE} into the cache, without root and without touching apt's"
        " configuration.",
    )
    parser.add_argument("--file", type=Path, help="use this image instead")
    parser.add_argument("--print-path", action="store_true", help="print nothing but the path on stdout")
    options = parser.parse_args(arguments)
    path = own_file(options.file) if options.file else packaged_image()
    print(path if options.print_path else f"TDVF image: {path}")


def own_file(path: Path) -> Path:
    """Return the user's image as an absolute path. Raises Missing if it is no file."""
    if not path.is_file():
        raise Missing(f"{path}: no such file")
    return path.resolve()


def packaged_image() -> Path:
    """Return the installed image, else the cached one, else fetch it. Raises Trouble."""
    installed = Path("/") / IMAGE
    if installed.is_file():
        return installed
    folder = cache_folder() / "firmware"
    image = folder / IMAGE.name
    if not image.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fetch_image(Path(scratch), image)
    return image


def fetch_image(scratch: Path, image: Path) -> None:
    """Fetch the package and put its image in place, all of it or nothing."""
    package = fetch(WANTED, scratch)
    content = scratch / "content"
    subprocess.run(["dpkg-deb", "-x", package, content], check=True)
    if not (content / IMAGE).is_file():
        raise Missing(f"{package.name} has no /{IMAGE}.\n{WANTED.instead}")
    shutil.copyfile(content / IMAGE, scratch / IMAGE.name)
    (scratch / IMAGE.name).replace(image)


if __name__ == "__main__":
    raise SystemExit(end_with_trouble(main))
