"""Where a program's own code executes the CPUID instruction.

Two bytes, 0f a2, also occur inside other instructions and in constants: one chance hit in some 64 KiB. A hit
counts only when decoding from the start of its function arrives exactly there.
"""

from __future__ import annotations

import mmap
import os
from binascii import crc32

from plugin.kvm.supervisor.elf import Elf, NotElf
from plugin.typing import NamedTuple

CPUID = b"\x0f\xa2"

_CACHE_FORMAT = b"cpuid-sites 3"  # then three lines of hexadecimal numbers, as in CpuidSites, and their CRC-32
_CACHE_LIMIT = 1 << 20  # bytes


class CpuidSites(NamedTuple):
    """The finds in one executable, as addresses in the file (before the load offset)."""

    entry: int  # the file's entry point, to compute the load offset from AT_ENTRY
    genuine: tuple[int, ...]
    undecided: tuple[int, ...]  # in no known function; must be left alone


def find_cpuid_sites(elf: Elf) -> CpuidSites:
    """Look through all executable segments. Raises NotElf if the file is damaged."""
    # Not at the top: most starts find the result cached.
    from iced_x86 import Code, Decoder  # noqa: PLC0415

    genuine, undecided = [], []
    for address in elf.find_code(CPUID):
        function = elf.function_around(address)
        if function is None:
            undecided.append(address)
            continue
        decoder = Decoder(64, elf.bytes_at(function.start, function.end - function.start))
        decoder.ip = function.start
        for instruction in decoder:
            if instruction.code == Code.INVALID:
                undecided.append(address)  # data amid the code: nothing behind it can be trusted
                break
            if instruction.ip >= address:
                if instruction.ip == address and instruction.code == Code.CPUID:
                    genuine.append(address)
                break
    return CpuidSites(elf.entry, tuple(genuine), tuple(undecided))


def cpuid_sites_of(path: str, *, anew: bool = False) -> CpuidSites:
    """Return the sites of an executable, from the cache if the very same file was examined before (not if `anew`).

    Raises NotElf, and OSError when the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        numbers = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        cached = os.path.join(cache_directory(), "-".join(f"{number:x}" for number in numbers))
        sites = None if anew else _load(cached)
        if sites is None:
            if status.st_size == 0:
                raise NotElf("an empty file")
            with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as image:
                sites = find_cpuid_sites(Elf(image))
            _store(cached, sites)
        return sites
    finally:
        os.close(descriptor)


def cache_directory() -> str:
    """Return the directory of remembered finds; it can be deleted at any time."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "tdx-cpuid", "cpuid-sites")


def _load(path: str) -> CpuidSites | None:
    """Return what was remembered; None if that is nothing, or nothing sensible."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # whatever it is, we do not wait for it
        try:
            content, _, checksum = os.read(descriptor, _CACHE_LIMIT).rpartition(b"\n")
        finally:
            os.close(descriptor)
        form, entry, genuine, undecided = content.split(b"\n")
        if form != _CACHE_FORMAT or int(checksum, 16) != crc32(content):
            return None
        return CpuidSites(int(entry, 16), _addresses(genuine), _addresses(undecided))
    except (OSError, ValueError):
        return None


def _addresses(line: bytes) -> tuple[int, ...]:
    return tuple([int(word, 16) for word in line.split()])


def _store(path: str, sites: CpuidSites) -> None:
    """Remember the finds; a cache that cannot be written only costs time."""
    temporary = f"{path}.{os.getpid()}"
    lines = [f"{sites.entry:x}", *(" ".join(f"{site:x}" for site in found) for found in sites[1:])]
    content = _CACHE_FORMAT + b"\n" + "\n".join(lines).encode()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content + b"\n%x" % crc32(content))
        os.replace(temporary, path)
    except OSError:
        pass
