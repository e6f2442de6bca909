"""What is known of a CPUID bit or field, from the tables alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from plugin.cpuid import ZERO, Bit, Cpuid
from plugin.cpuid.fields import Field
from plugin.cpuid.linux import flags_of
from plugin.tdx_module import ModuleVersion, Platform
from plugin.tdx_module.classes import class_of
from qmp_client.explain.switch import Switch, switch


class Kvm(NamedTuple):
    """What KVM does to the bits that the module lets a VMM choose."""

    hidden: Cpuid
    """Not shown to VMMs."""
    added: Cpuid
    """Shown though the module has no part in them."""


class Explanation(msgspec.Struct, frozen=True, rename="kebab"):
    """One bit, or one field of several bits."""

    where: str
    """As in ``0x7.0.ecx[5]``; for a field that several sub-leaves have, on the first of them."""
    name: str
    """In x86-cpuid-db's terms; empty if there is none."""
    qemu_name: str
    linux: tuple[str, ...]
    """What Linux calls it in /proc/cpuinfo."""
    description: str
    critical: bool
    """KVM's own emulation relies on it."""
    hidden_by_kvm: bool
    """Upstream KVM does not let a VMM choose it, although the module does."""
    modules: dict[str, str]
    """Who controls it in each module version; several words where the field's bits differ."""
    platforms: dict[str, int]
    """The field's value on each processor."""
    module: str
    """The version that ``on`` and ``off`` are about."""
    on: str
    off: str


def explain(
    thing: Field | Bit,
    modules: Sequence[ModuleVersion],
    platforms: Sequence[Platform],
    kvm: Kvm,
    module: ModuleVersion,
) -> Explanation:
    """Put together what the tables say; ``module`` is the version that the advice is about."""
    bits = thing.bits() if isinstance(thing, Field) else (thing,)
    field = thing if isinstance(thing, Field) else None
    first, last = bits[0], bits[-1]
    is_hidden, is_added = _all_in(kvm.hidden, bits), _all_in(kvm.added, bits)
    qemu_name = field.qemu_name if field else ""
    if is_added:
        choice = f"-cpu host,{qemu_name}=N: KVM takes it apart from the module's configuration"
        advice = Switch(choice, choice)
    else:
        advice = switch(class_of(module, first), first, qemu_name, hidden=is_hidden, single=len(bits) == 1)
    span = f"{first.position}" if len(bits) == 1 else f"{last.position}:{first.position}"
    return Explanation(
        where=f"{first.leaf}.{first.register}[{span}]",
        name=field.name if field else "",
        qemu_name=qemu_name,
        linux=tuple(dict.fromkeys(flag.name for bit in bits for flag in flags_of(bit))),
        description=field.description if field else "",
        critical=field.kvm_critical if field else False,
        hidden_by_kvm=is_hidden,
        modules={version.name: _classes(version, bits) for version in modules},
        platforms={platform.name: _value(platform, bits) for platform in platforms},
        module=module.name,
        on=advice.on,
        off=advice.off,
    )


def _all_in(masks: Cpuid, bits: Sequence[Bit]) -> bool:
    return all(masks.get(bit.leaf, ZERO).get(bit.register) >> bit.position & 1 for bit in bits)


def _classes(module: ModuleVersion, bits: Sequence[Bit]) -> str:
    return ", ".join(dict.fromkeys(str(class_of(module, bit)) for bit in bits))


def _value(platform: Platform, bits: Sequence[Bit]) -> int:
    value = platform.native_leaf(bits[0].leaf).get(bits[0].register)
    return value >> bits[0].position & (1 << len(bits)) - 1


def ranges(modules: Mapping[str, str]) -> list[tuple[str, str]]:
    """Join neighbouring versions in which the same holds: ``1.0 to 1.0.3``."""
    joined: list[list[str]] = []
    for version, said in modules.items():
        if joined and joined[-1][2] == said:
            joined[-1][1] = version
        else:
            joined.append([version, version, said])
    return [(first if first == last else f"{first} to {last}", said) for first, last, said in joined]
