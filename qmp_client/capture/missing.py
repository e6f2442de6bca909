"""What TDX lacks on this machine, in the order in which it comes to life. Only reads files of /proc, /sys and /boot."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

INTEL = "GenuineIntel"
NEEDS = "TDX hosts need Linux 6.16 or newer"
OPTIONS = ("CONFIG_INTEL_TDX_HOST", "CONFIG_KVM_INTEL_TDX")


def five_lines(root: Path, release: str) -> list[str]:
    """Say of processor, firmware, kernel, KVM module and permission how each stands; with what mends it.

    ``root`` is the root of the file system to look at, ``release`` the kernel's (uname -r).
    """
    return [
        f"processor: {_processor(root)}",
        f"BIOS: {_firmware(root)}",
        f"kernel: {_kernel(root, release)}",
        f"kvm_intel: {_module(root)}",
        f"/dev/kvm: {_device(root)}",
    ]


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _processor(root: Path) -> str:
    info = _cpuinfo(root)
    name = info.get("model name", "unknown")
    if info.get("vendor_id") != INTEL:
        return f"{name} has no TDX: Intel's from the fourth Xeon generation on have"
    if "hypervisor" in info.get("flags", "").split():
        return f"{name}, in a virtual machine: TDX needs the host itself"
    return name


def _is_another_vendor_s(root: Path) -> bool:
    """Whether the processor is known not to be Intel's: then no setting helps."""
    return _cpuinfo(root).get("vendor_id", INTEL) != INTEL


def _firmware(root: Path) -> str:
    if _is_another_vendor_s(root):
        return "nothing to enable: this processor has no TDX"
    flags = _cpuinfo(root).get("flags", "").split()
    if "tdx_host_platform" in flags:
        return "TDX is enabled"
    memory = "" if "tme" in flags else " and memory encryption (TME, TME-MT)"
    return f"TDX is not enabled, or the processor has none: enable TDX{memory} and SEAM loader in the BIOS"


def _kernel(root: Path, release: str) -> str:
    try:
        major, minor = (int(part) for part in release.split(".")[:2])
    except ValueError:
        major, minor = 0, 0
    if (major, minor) < (6, 16):
        return f"Linux {release} is too old: {NEEDS}"
    options = _options(root, release)
    if options is None:
        return f"Linux {release}; its configuration cannot be read ({', '.join(OPTIONS)} are needed)"
    lacking = [option for option in OPTIONS if f"{option}=y" not in options]
    return f"Linux {release} lacks {', '.join(lacking)}" if lacking else f"Linux {release} has TDX"


def _options(root: Path, release: str) -> set[str] | None:
    try:
        return set((root / f"boot/config-{release}").read_text().split())
    except OSError:
        pass
    try:
        return set(gzip.decompress((root / "proc/config.gz").read_bytes()).decode().split())
    except (OSError, EOFError):
        return None


def _module(root: Path) -> str:
    folder = root / "sys/module/kvm_intel"
    if not folder.exists() and _is_another_vendor_s(root):
        return "not loaded: it is KVM's part for Intel's processors"
    if not folder.exists():
        return "not loaded: sudo modprobe kvm_intel tdx=1 (virtualisation must be on in the BIOS)"
    try:
        value = (folder / "parameters/tdx").read_text().strip()
    except OSError:
        return "has no parameter tdx: this kernel's KVM knows no TDX"
    if value == "Y":
        return "tdx=Y"
    return "tdx=N: put kvm_intel.tdx=1 on the kernel's command line and boot (sudo dmesg | grep -i tdx says why)"


def _device(root: Path) -> str:
    device = root / "dev/kvm"
    if not device.exists():
        return "is not there: KVM is not loaded"
    if not os.access(device, os.R_OK | os.W_OK):
        return "may not be opened: sudo usermod -aG kvm $USER, then log in again"
    return "may be opened"
