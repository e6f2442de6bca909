"""The QEMU command line of a TD that is held before its first vCPU exists."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

HOST_MODELS = ("host", "max")
"""Models that take the processor as it is."""
HOST_WIDTH = "host-phys-bits=on"
ENFORCE = "enforce"
"""The property of ``-cpu`` by which QEMU ends when the model's features are not there."""
SWITCHED = {"yes": "on", "true": "on", "y": "on", "no": "off", "false": "off", "n": "off"}
"""Other ways in which QEMU takes ``on`` and ``off``."""


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
    """``-cpu`` as QEMU gets it.

    A TD has the processor's physical address width, which named models have not. ``enforce`` is for the report to
    hold: QEMU would end at the first feature that is not there, and nothing could be read.
    """
    words = [word for word in cpu.split(",") if word.partition("=")[0].strip() != ENFORCE]
    if is_named_model(cpu) and "phys-bits=" not in cpu:
        words.append(HOST_WIDTH)
    return ",".join(words)


def changes(cpu: str) -> list[str]:
    """What ``cpu_option`` does to ``-cpu``, a sentence each."""
    said = []
    if is_named_model(cpu) and "phys-bits=" not in cpu:
        said.append(f"added to -cpu: {HOST_WIDTH}, because a TD has the processor's physical address width")
    if any(setting.name == ENFORCE for setting in settings(cpu)):
        said.append(f"taken out of -cpu: {ENFORCE}, with which QEMU would end; the report holds the model to its word")
    return said


class Setting(NamedTuple):
    """One word of ``-cpu`` behind the model."""

    text: str
    """As it was written: ``-stibp``, ``family=6``."""
    name: str
    """QEMU's property, with dashes; QEMU takes ``sse4_1`` for ``sse4-1``."""
    value: str
    """``on``, ``off``, or what the property is to be."""


def settings(cpu: str) -> list[Setting]:
    """The words of a ``-cpu`` option in the order in which QEMU applies them.

    What has a ``=`` or no sign comes first, then what begins with ``+``, then what begins with ``-``.
    """
    found = []
    for word in cpu.split(",")[1:]:
        text = word.strip()
        if text[:1] in ("+", "-") and "=" not in text:
            order, name, value = ("+-".index(text[0]) + 1, text[1:], "on" if text[0] == "+" else "off")
        else:
            name, equals, value = text.partition("=")
            order, value = 0, SWITCHED.get(value, value) if equals else "on"
        if name:
            found.append((order, Setting(text, name.replace("_", "-"), value)))
    return [setting for _, setting in sorted(found, key=lambda one: one[0])]


def enforces(cpu: str) -> bool:
    """Whether ``-cpu`` insists on all that its model promises."""
    return "on" in [setting.value for setting in settings(cpu) if setting.name == ENFORCE][-1:]
