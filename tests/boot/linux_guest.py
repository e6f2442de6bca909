"""``scripts/test-guest``: a small Linux with the QEMU guest agent, of the distribution's own packages, to be booted.

A kernel and an initial file system with busybox, qemu-ga and the libraries that it needs. They are fetched into the
cache, without root and without installing anything; what was made from the same script is found there.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from plugin.qemu.distribution import PrivateApt, Wanted, configured_archives, os_release, own_archive, this_distribution
from plugin.qemu.trouble import Missing, cache_folder, end_with_trouble

KERNEL = "linux-image-cloud-amd64"
AGENT = "qemu-guest-agent"
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"),
    *("virtio_console", "virtio_blk"),
)
"""In the order in which they need each other; a kernel that has one built in has no file for it."""
PORT = "org.qemu.guest_agent.0"
INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {" ".join(MODULES)}; do [ -f /$module.ko ] && insmod /$module.ko; done
dd if=/dev/vda bs=1 skip=43 count=11 2>/dev/null; echo " is the disk"
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" = {PORT} ] && qemu-ga -m virtio-serial -p /dev/${{port##*/}} -d
done
echo "linux guest is up"
while :; do sleep 60; done
"""
SHUTDOWN = """#!/bin/sh
echo "switched off by the agent" > /dev/console
exec poweroff -f
"""
WANTED = Wanted(
    package=KERNEL,
    version="",
    source=False,
    name="kernel for virtual machines",
    instead="Without it, the test with a real guest agent does not run.",
)


class GuestApt(PrivateApt):
    """apt that takes binary packages with what they need."""

    def needs(self, package: str) -> list[str]:
        """Return the package and everything that it depends on."""
        output = subprocess.run(
            ["apt-cache", *self._options(), "depends", "--recurse", "--important", package],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return sorted({line for line in output.splitlines() if line[:1] not in (" ", "<", "|")})

    def fetch_all(self, packages: Iterable[str], into: Path) -> list[Path]:
        """Download the newest versions of binary packages; return their .debs. Raises Trouble."""
        self._run("apt-get", "download", "-qq", *packages, cwd=into)
        return sorted(into.glob("*.deb"))


def main(arguments: list[str]) -> None:
    """Print the folder with ``vmlinuz`` and ``initrd``. Raises Trouble."""
    parser = argparse.ArgumentParser(prog="test-guest", description=__doc__)
    parser.parse_args(arguments)
    release = os_release()
    made_by = hashlib.sha256(Path(__file__).read_bytes() + release.get("VERSION_CODENAME", "").encode()).hexdigest()
    folder = cache_folder() / "test-guest" / made_by[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            root, made = Path(scratch) / "root", Path(scratch) / "made"
            made.mkdir()
            fetch(Path(scratch), root, release)
            kernel = next(root.glob("boot/vmlinuz-*"))
            (made / "vmlinuz").write_bytes(kernel.read_bytes())
            (made / "initrd").write_bytes(gzip.compress(cpio(files(root)), compresslevel=1))
            made.rename(folder)
    print(folder)


def fetch(scratch: Path, root: Path, release: dict[str, str]) -> None:
    """Unpack the packages of this machine's own release. Raises Trouble."""
    own = this_distribution(release, WANTED)
    archive = own_archive(own, configured_archives(Path("/etc/apt")), release, WANTED)
    apt = GuestApt(scratch / "apt", own, archive, sources=False)
    apt.update(release["VERSION_CODENAME"])
    kernels = [name for name in apt.needs(KERNEL) if name.startswith("linux-image-") and name != KERNEL]
    if not kernels:
        raise Missing(f"{own.name} has no {KERNEL} now.\n{WANTED.instead}")
    libraries = [name for name in apt.needs(AGENT) if name.startswith("lib") and "perl" not in name]
    for package in apt.fetch_all([*kernels, "busybox-static", AGENT, *libraries], scratch):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)


def files(root: Path) -> dict[str, bytes]:
    """What the guest's file system has: contents by name."""
    found: dict[str, bytes] = {"init": INIT.encode(), "sbin/shutdown": SHUTDOWN.encode()}
    for name in ("bin/busybox", "usr/bin/busybox"):
        if (root / name).is_file():
            found["bin/busybox"] = (root / name).read_bytes()
    found["bin/qemu-ga"] = (root / "usr/sbin/qemu-ga").read_bytes()
    for module in MODULES:
        for path in root.rglob(f"{module}.ko*"):
            data = path.read_bytes()
            found[f"{module}.ko"] = lzma.decompress(data) if path.suffix == ".xz" else data
    for path in [*root.rglob("*.so"), *root.rglob("*.so.*")]:
        if path.is_file():
            folder = "lib64" if path.name.startswith("ld-linux") else "lib"
            found[f"{folder}/{path.name}"] = path.resolve().read_bytes()
    return found


def cpio(content: dict[str, bytes]) -> bytes:
    """An archive in the form that the kernel takes (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    folders = {"dev", "proc", "sys", "run", "var", "var/run", "tmp"}
    folders |= {str(parent) for name in content for parent in Path(name).parents if str(parent) != "."}
    members: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in sorted(folders)]
    members += [(name, 0o100755, data) for name, data in content.items()]
    archive = bytearray()
    for number, (name, mode, data) in enumerate([*members, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += header + b"\0" * (-len(header) % 4) + data + b"\0" * (-len(data) % 4)
    return bytes(archive)


if __name__ == "__main__":
    raise SystemExit(end_with_trouble(main))
