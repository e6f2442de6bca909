"""The messages of the patched QEMU's QMP commands (``plugin/qemu/*/``, ``qapi/misc-i386.json``).

Everything that crosses the wire is checked against these types on the way in, and nowhere else.
"""

from __future__ import annotations

import msgspec

from qmp_client.entries import Entry


class ConfigCpuid(msgspec.Struct, rename="kebab"):
    """``x-query-tdx-config-cpuid``: what KVM lets userspace choose for a TD."""

    supported_attributes: int
    supported_xfam: int
    cpuid: list[Entry]
    interface: str = "upstream"


class RequestedCpuid(msgspec.Struct):
    """``x-query-tdx-requested-cpuid``: what the ``-cpu`` model built, before any TDX filtering."""

    attributes: int
    xfam: int
    cpuid: list[Entry]
    dropped: list[Entry]
    """Feature bits that were asked for and that QEMU itself took away before KVM saw them."""


class VcpuCpuid(msgspec.Struct, rename="kebab"):
    """``x-query-tdx-vcpu-cpuid``: what one vCPU really has."""

    cpu_index: int
    cpuid: list[Entry]


class CpuFast(msgspec.Struct, rename="kebab"):
    """``CpuInfoFast`` of ``query-cpus-fast``, as far as it is needed."""

    cpu_index: int


class CpuInQom(CpuFast, rename="kebab"):
    """The same, with the place where its properties are."""

    qom_path: str


class CommandInfo(msgspec.Struct):
    """``CommandInfo`` of ``query-commands``."""

    name: str


class Triple(msgspec.Struct):
    """``VersionTriple``."""

    major: int
    minor: int
    micro: int


class Version(msgspec.Struct):
    """``VersionInfo`` of the greeting."""

    qemu: Triple
    package: str = ""

    def __str__(self) -> str:
        """Such as ``10.2.2 (Debian 1:10.2.2+ds-1)``."""
        number = f"{self.qemu.major}.{self.qemu.minor}.{self.qemu.micro}"
        package = self.package.strip()
        return f"{number} ({package})" if package else number


class Shutdown(msgspec.Struct):
    """The data of the event ``SHUTDOWN``."""

    reason: str = ""
    """QEMU's word (``ShutdownCause``), such as ``guest-shutdown``."""


class FeatureWord(msgspec.Struct, rename="kebab"):
    """``X86CPUFeatureWordInfo`` of a stock QEMU: one register's feature bits."""

    cpuid_register: str
    cpuid_input_eax: int
    features: int
    cpuid_input_ecx: int | None = None
