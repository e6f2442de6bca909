"""The QEMU command line of a TD that is held before its first vCPU exists."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

HOST_MODELS = ("host", "max")
"""Models that take the processor as it is."""


class Machine(NamedTuple):
    """What to run: the parts of QEMU's command line that decide a TD's CPUID."""

    qemu: Path
    firmware: Path
    cpu: str = "host"
    """As QEMU takes it: a model, then features, as in ``host,-avx512f``."""
    smp: str = "1"
    """As QEMU takes it: a number, or ``sockets=..,cores=..,threads=..``."""
    memory: str = "512M"
    machine: str = "q35"
    stock: bool = False
    """Use nothing that is only in a QEMU patched by this project."""


def arguments(machine: Machine, monitor_fd: int) -> list[str]:
    """The whole command line of a TD that is held in preconfig."""
    return [
        *frame(machine, monitor_fd),
        *("-preconfig", "-accel", "kvm"),
        *("-machine", f"{machine.machine},kernel-irqchip=split,confidential-guest-support=tdx0"),
        *("-object", guest_object(machine.cpu, patched=not machine.stock)),
        *("-cpu", cpu_option(machine.cpu)),
    ]


def frame(machine: Machine, monitor_fd: int) -> list[str]:
    """What every QEMU is given: nothing by default, and a monitor on an inherited, connected socket.

    The vCPUs do not run (``-S``): CPUID is decided before the first instruction of the guest. The monitor is made with
    ``-qmp``, because ``-mon`` is deprecated since QEMU 11.1 and a line about that would stand in each error.
    """
    return [
        str(machine.qemu),
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-smp", machine.smp),
        *("-m", machine.memory),
        *("-bios", str(machine.firmware)),
        *("-chardev", f"socket,id=qmp,fd={monitor_fd}"),
        *("-qmp", "chardev:qmp"),
    ]


def is_named_model(cpu: str) -> bool:
    """Whether ``-cpu`` names a model of its own rather than this host's processor."""
    return cpu.partition(",")[0] not in HOST_MODELS


def guest_object(cpu: str, *, patched: bool = True) -> str:
    """The TD object. QEMU refuses named models for TDs unless it is patched and told to take them."""
    return "tdx-guest,id=tdx0" + (",x-named-cpu-models=on" if patched and is_named_model(cpu) else "")


def cpu_option(cpu: str) -> str:
    """``-cpu`` as QEMU gets it: a TD has the processor's physical address width, which named models have not."""
    return f"{cpu},host-phys-bits=on" if is_named_model(cpu) and "phys-bits=" not in cpu else cpu


def features_named(cpu: str) -> dict[str, bool]:
    """The features that a ``-cpu`` option names, by QEMU property name, and whether it asks for them.

    ``host,-waitpkg,avx512f=off,+aes`` names waitpkg (no), avx512f (no) and aes (yes). Properties with other values
    (``phys-bits=46``) are left out: they are no features.
    """
    named: dict[str, bool] = {}
    for word in cpu.split(",")[1:]:
        name, equals, value = word.partition("=")
        if name[:1] in "+-" and not equals:
            named[_property(name[1:])] = name[0] == "+"
        elif not equals or value in ("on", "off"):
            named[_property(name)] = value != "off"
    return named


def _property(name: str) -> str:
    """QEMU takes ``sse4_1`` for ``sse4-1``."""
    return name.strip().replace("_", "-")
