"""Whether this machine can run a TD on its own KVM."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

KVM_CHECK_EXTENSION = 0xAE03
KVM_CAP_VM_TYPES = 235
KVM_X86_TDX_VM = 5
VERSION_FILE = "sys/devices/faux/tdx_host/version"
"""Documentation/ABI/testing/sysfs-devices-faux-tdx-host; older kernels keep it to themselves."""


def what_is_missing(device: str = "/dev/kvm") -> str:
    """Say why no TD can run here, or return an empty string when one can."""
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"there is no {device} (no KVM module, or virtualisation is off in the BIOS)"
    except PermissionError:
        return f"{device} may not be opened (join the group kvm)"
    except OSError as error:
        return f"{device}: {error.strerror}"
    try:
        types = fcntl.ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES)
    except OSError as error:
        return f"{device} does not answer as KVM does: {error.strerror}"
    finally:
        os.close(kvm)
    if types >> KVM_X86_TDX_VM & 1:
        return ""
    return "KVM offers no TDX VMs (needs a TDX processor and BIOS, Linux 6.16 or newer, and kvm_intel.tdx=1)"


def module_version(root: Path = Path("/")) -> str:
    """The loaded TDX module's version, such as ``1.5.06``; empty where the kernel does not tell."""
    try:
        return (root / VERSION_FILE).read_text(errors="replace").strip()
    except OSError:
        return ""
