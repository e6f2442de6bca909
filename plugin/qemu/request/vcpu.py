"""What QEMU makes of a TD's CPUID once it has read it, while it creates the vCPU (tdx_check_features and after)."""

from collections.abc import Mapping

from plugin.cpuid import Leaf, Registers
from plugin.qemu.request.build import Request
from plugin.qemu.request.cpu import Cpu
from plugin.qemu.request.errors import Refused
from plugin.qemu.request.leaves import build_leaves
from plugin.qemu.request.words import Word, Words

SIGNATURE, FEATURES, TIMING = 0x40000000, 0x40000001, 0x40000010
KVM_SIGNATURE = Registers(ebx=0x4B4D564B, ecx=0x564B4D56, edx=0x4D)
"""KVMKVMKVM in EBX, ECX, EDX."""
APIC_BUS_KHZ = 1_000_000
FAMILY_WITH_MACHINE_CHECK = 6
_MACHINE_CHECK = (Word(Leaf(0x1), "edx"), 1 << 7 | 1 << 14)
_SYSCALL = (Word(Leaf(0x80000001), "edx"), 1 << 11)
"""KVM tells it as in 32-bit mode, so QEMU takes it to be there."""


def check(request: Request, actual: Mapping[Leaf, Registers]) -> None:
    """Raise Refused where QEMU ends when it sees the TD's CPUID. ``actual`` is what KVM_TDX_GET_CPUID told."""
    cpu = request.cpu
    ours, hosts = cpu.physical_width, cpu.host_physical_width
    if ours != hosts:
        raise Refused(f"TDX requires guest CPU physical bits ({ours}) to match host CPU physical bits ({hosts})")
    word, both = _MACHINE_CHECK
    had, has = (words.get(word, 0) & both == both for words in (cpu.words, _words_of_td(cpu, actual)))
    if has and not had and cpu.version >> 8 & 0xF >= FAMILY_WITH_MACHINE_CHECK:
        raise Refused(
            "KVM_X86_SETUP_MCE fails for want of machine-check banks: the TD has mce and mca, but the CPU model was"
            " not to have both"
        )


def told_to_kvm(request: Request, actual: Mapping[Leaf, Registers]) -> dict[Leaf, Registers]:
    """Every leaf of vCPU 0 that KVM_SET_CPUID2 gets, in QEMU's order.

    Where the TD's CPUID is known, its features replace those that were asked for.
    """
    cpu = request.cpu
    asked, cpu.words = cpu.words, _words_of_td(cpu, actual)
    leaves: dict[Leaf, Registers] = {}
    paravirtual = cpu.option.values.get("kvm", True)
    timing = paravirtual and cpu.has("invtsc") and cpu.host.tsc_khz
    if paravirtual:
        leaves[Leaf(SIGNATURE)] = KVM_SIGNATURE._replace(eax=TIMING if timing else FEATURES)
        leaves[Leaf(FEATURES)] = Registers(
            eax=cpu.words.get(Word(Leaf(FEATURES), "eax"), 0), edx=cpu.words.get(Word(Leaf(FEATURES), "edx"), 0)
        )
    leaves |= build_leaves(cpu)
    if timing:
        leaves[Leaf(TIMING)] = Registers(eax=cpu.host.tsc_khz, ebx=APIC_BUS_KHZ)
    cpu.words = asked
    return leaves


def _words_of_td(cpu: Cpu, actual: Mapping[Leaf, Registers]) -> Words:
    of_td = {(leaf.number, leaf.subleaf or 0): registers for leaf, registers in actual.items()}
    words = dict(cpu.words)
    for word in cpu.features.words:
        if word.place in of_td:
            value = of_td[word.place].get(word.register)
            words[word] = value | _SYSCALL[1] if word == _SYSCALL[0] else value
    return words
