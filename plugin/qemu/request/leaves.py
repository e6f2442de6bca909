"""The leaves that QEMU builds for KVM from a CPU's features (kvm_x86_build_cpuid, cpu_x86_cpuid)."""

from collections.abc import Callable, Iterator

from plugin.cpuid import ZERO, Leaf, Register, Registers
from plugin.qemu.request.cpu import Cpu
from plugin.qemu.request.supported import STATES
from plugin.qemu.request.words import Word

VENDOR = Registers(0, 0x756E6547, 0x6C65746E, 0x49656E69)
"""GenuineIntel in EBX, EDX, ECX: KVM gives every model the host's vendor."""

CLFLUSH_QUADWORDS = 8
NO_DESCRIPTORS = 0xFF
"""Leaf 2's way of pointing to leaf 4."""
MWAIT_EXTENSIONS = 0b11
LEGACY_AREA = 576
"""Bytes of an XSAVE area with nothing but x87 and SSE state, and the header."""
ALIGNED, FAULTING = 1 << 1, 1 << 2
"""Leaf 0xD ECX of a state component."""
TILE = (Registers(eax=1), Registers(0x2000 | 0x400 << 16, 0x40 | 0x8 << 16, 0x10))
TMUL = Registers(ebx=0x10 | 0x40 << 8)
LEVEL_TYPES = {"thread": 1, "core": 2, "module": 3, "die": 5}
ARCHITECTURAL_LBR = 1 << 15
"""A state component that QEMU shows with a PMU only."""

SGX_END = 3
"""Sub-leaves of leaf 0x12 that are there without SGX; the last one ends the list."""

Row = tuple[Leaf, Registers]


def build_leaves(cpu: Cpu) -> dict[Leaf, Registers]:
    """Every leaf of vCPU 0, in QEMU's order. A leaf without sub-leaves that is all zero is left out, as by QEMU."""
    leaves: dict[Leaf, Registers] = {}
    for number in range(cpu.level + 1):
        leaves.update(_basic(cpu, number))
    for number in range(0x80000000, cpu.xlevel + 1):
        leaves.update(_extended(cpu, number))
    if cpu.xlevel2:
        for number in range(0xC0000000, cpu.xlevel2 + 1):
            leaves[Leaf(number)] = _centaur(cpu, number)
    return leaves


def _features(cpu: Cpu, leaf: Leaf) -> Registers:
    """A leaf that consists of feature words."""

    def word(register: Register) -> int:
        return cpu.words.get(Word(leaf, register), 0)

    return Registers(word("eax"), word("ebx"), word("ecx"), word("edx"))


def _basic(cpu: Cpu, number: int) -> Iterator[Row]:
    if number in _WITH_SUBLEAVES:
        yield from _WITH_SUBLEAVES[number](cpu)
    else:
        yield from _unless_zero(number, _plain(cpu, number))


def _structured_features(cpu: Cpu) -> Iterator[Row]:
    yield Leaf(7, 0), _features(cpu, Leaf(7, 0)).with_("eax", cpu.level_7)
    for subleaf in range(1, cpu.level_7 + 1):
        yield Leaf(7, subleaf), _features(cpu, Leaf(7, subleaf))


def _package(cpu: Cpu) -> Iterator[Row]:
    if cpu.option.values.get("cpuid-0xb") is False:
        yield Leaf(0xB, 0), ZERO
        return
    yield Leaf(0xB, 0), _topology(cpu, 0, "thread", "core")
    yield Leaf(0xB, 1), _topology(cpu, 1, "core", "socket")
    yield Leaf(0xB, 2), Registers(ecx=2)


def _avx10(cpu: Cpu) -> Iterator[Row]:
    version = _features(cpu, Leaf(0x24, 0)).ebx | cpu.avx10_version
    yield Leaf(0x24, 0), Registers(ebx=version) if cpu.has("avx10") else ZERO


def _fixed(number: int, rows: tuple[Registers, ...], feature: str = "") -> Callable[[Cpu], Iterator[Row]]:
    """Sub-leaves that do not depend on the CPU, but for a feature without which one of zeros is left."""

    def leaf(cpu: Cpu) -> Iterator[Row]:
        there = not feature or cpu.has(feature)
        for subleaf, registers in enumerate(rows if there else (ZERO,)):
            yield Leaf(number, subleaf), registers

    return leaf


def _unless_zero(number: int, registers: Registers) -> Iterator[Row]:
    if registers != ZERO:
        yield Leaf(number), registers


def _plain(cpu: Cpu, number: int) -> Registers:
    if number == 0x0:
        return VENDOR._replace(eax=cpu.level)
    if number == 0x1:
        threads = cpu.topology.threads_per_package
        ids = min(1 << cpu.topology.offset("socket"), 255) if threads > 1 else 0
        return _features(cpu, Leaf(1))._replace(eax=cpu.version, ebx=CLFLUSH_QUADWORDS << 8 | ids << 16)
    if number == 0x2:
        return Registers(eax=1, edx=NO_DESCRIPTORS)
    if number == 0x5:
        return Registers(ecx=MWAIT_EXTENSIONS)
    if number == 0x6:
        return _features(cpu, Leaf(6))
    return ZERO


def _caches(cpu: Cpu, number: int) -> Iterator[Row]:
    """Leaf 4, or AMD's 0x8000001d, which leaves out the package's cores and some of EDX."""
    topology = cpu.topology
    package = 0
    if number == 0x4:
        package = min((1 << topology.offset("socket") - topology.offset("core")) - 1, 63) << 26
    caches = cpu.caches[:3] if number == 0x4 and cpu.option.values.get("l3-cache") is False else cpu.caches
    for subleaf, cache in enumerate(caches):
        sharing = min((1 << topology.offset(cache.shared)) - 1, 4095) << 14
        registers = cache.registers._replace(eax=cache.registers.eax | sharing | package)
        if number != 0x4:
            registers = registers.with_("edx", registers.edx & 0b11)
        yield Leaf(number, subleaf), registers
    yield Leaf(number, len(caches)), ZERO


def _topology(cpu: Cpu, subleaf: int, level: str, holder: str) -> Registers:
    return Registers(
        cpu.topology.offset(holder), cpu.topology.threads_of(holder) & 0xFFFF, subleaf | LEVEL_TYPES[level] << 8
    )


def _levels(cpu: Cpu) -> Iterator[Row]:
    levels = ["thread", "core"]
    levels += ["module"] if cpu.topology.modules > 1 else []
    levels += ["die"] if cpu.topology.dies > 1 else []
    for subleaf, (level, holder) in enumerate(zip(levels, [*levels[1:], "socket"], strict=True)):
        yield Leaf(0x1F, subleaf), _topology(cpu, subleaf, level, holder)
    yield Leaf(0x1F, len(levels)), Registers(ecx=len(levels))


def _states(cpu: Cpu) -> Iterator[Row]:
    """Leaf 0xD. Sub-leaves whose EAX is 0 are left out, sub-leaf 1 too."""
    if not cpu.has("xsave"):
        return
    enabled = cpu.words.get(STATES[0], 0) | cpu.words.get(STATES[1], 0) << 32
    components = {number: cpu.host.execute(0xD, number) for number in cpu.states if enabled >> number & 1}
    standard = compacted = LEGACY_AREA
    for number, native in components.items():
        if number >= 2:
            offset = native.ebx if native.eax else 0
            standard = max(standard, offset + cpu.states[number])
            compacted += cpu.states[number]
    if enabled & 0xFFFFFFFF:
        yield Leaf(0xD, 0), Registers(enabled & 0xFFFFFFFF, standard, standard, enabled >> 32)
    features = _features(cpu, Leaf(0xD, 1))
    if features.eax:
        yield Leaf(0xD, 1), features._replace(ebx=compacted, ecx=features.ecx & ~ARCHITECTURAL_LBR)
    for number, native in components.items():
        if number >= 2:
            kept = (native.ebx, native.ecx & (ALIGNED | FAULTING)) if native.eax else (0, 0)
            yield Leaf(0xD, number), Registers(cpu.states[number], *kept)


def _extended(cpu: Cpu, number: int) -> Iterator[Row]:
    if number == 0x8000001D:
        yield from _caches(cpu, number)
        return
    registers = ZERO
    if number == 0x80000000:
        registers = Registers(eax=cpu.xlevel)
    elif number == 0x80000001:
        registers = _features(cpu, Leaf(number))._replace(eax=cpu.version)
    elif number <= 0x80000004:
        text = cpu.model_id.encode("latin-1")[:48].ljust(48, b"\0")[(number - 0x80000002) * 16 :]
        registers = Registers(*(int.from_bytes(text[at : at + 4], "little") for at in range(0, 16, 4)))
    elif number == 0x80000006:
        registers = Registers(ecx=cpu.caches[2].extended)
    elif number == 0x80000007:
        registers = Registers(edx=_features(cpu, Leaf(number)).edx)
    elif number == 0x80000008:
        width = cpu.physical_width
        if cpu.has("lm"):
            width |= (57 if cpu.has("la57") else 48) << 8 | cpu.guest_width << 16
        registers = Registers(eax=width, ebx=_features(cpu, Leaf(number)).ebx)
    elif number == 0x8000001E:
        registers = Registers(ebx=cpu.topology.threads - 1 << 8)
    elif number == 0x80000021:
        registers = _features(cpu, Leaf(number))
    yield from _unless_zero(number, registers)


def _centaur(cpu: Cpu, number: int) -> Registers:
    if number == 0xC0000000:
        return Registers(eax=cpu.xlevel2)
    if number == 0xC0000001:
        return Registers(cpu.version, edx=_features(cpu, Leaf(number)).edx)
    return ZERO


_WITH_SUBLEAVES: dict[int, Callable[[Cpu], Iterator[Row]]] = {
    0x4: lambda cpu: _caches(cpu, 0x4),
    0x7: _structured_features,
    0xB: _package,
    0xD: _states,
    0x12: _fixed(0x12, (ZERO,) * SGX_END),
    0x14: _fixed(0x14, (ZERO,)),
    0x1D: _fixed(0x1D, TILE, "amx-tile"),
    0x1E: _fixed(0x1E, (TMUL,), "amx-tile"),
    0x1F: _levels,
    0x24: _avx10,
}
