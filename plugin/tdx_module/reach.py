"""What a field of a TD's CPUID can be at all, on one module and processor, with what a VMM may choose.

Nothing is listed: TDs are made that differ in all that can be chosen, and what is the same in each of them is so in
every TD. Gates and rules only clear bits, so the extremes of XFAM, ATTRIBUTES and CPUID_CONFIG show each value that a
bit can have; a number that may be configured is tried itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from plugin.cpuid import ZERO, Cpuid, Leaf, Register, Registers
from plugin.tdx_module.errors import SeamcallError
from plugin.tdx_module.init import init_td
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.platform import Platform
from plugin.tdx_module.td import TdParams
from plugin.typing import NamedTuple

XFAM_GROUPS = (1 << 2, 0b111 << 5, 1 << 8, 1 << 9, 0b11 << 11, 1 << 14, 1 << 15, 0b11 << 17)
"""XFAM bits that come and go together."""
_SIGNATURE = Leaf(1)
_TSX = Registers(ebx=1 << 4 | 1 << 11)
_TOPOLOGY = 0x1F
_LEVELS = (Registers(1, 2, 0x100), Registers(7, 128, 0x201), *(Registers(ecx=n) for n in range(2, 6)))
"""Two threads, and 64 cores."""


class Offer(NamedTuple):
    """What a VMM may choose: bits of ATTRIBUTES, of XFAM, and of CPUID_CONFIG by leaf, spelled as in the module."""

    attributes: int
    xfam: int
    cpuid: Cpuid


class Reach:
    """The TDs that there can be."""

    def __init__(self, module: ModuleVersion, platform: Platform, offer: Offer) -> None:
        self._module = module
        self._platform = platform
        self._offer = offer
        self.xfam = module.xfam_supported(platform) & offer.xfam
        """XFAM bits that can be had."""

    def can_be(self, leaf: Leaf, register: Register, mask: int, value: int) -> bool:
        """Whether there can be a TD in which the bits under ``mask`` are those of ``value``."""
        index = ("eax", "ebx", "ecx", "edx").index(register)
        if any((cpuid.get(leaf, ZERO)[index] ^ value) & mask == 0 for cpuid in self._tds):
            return True
        offered = self._offer.cpuid.get(leaf, ZERO)[index] & mask
        if not offered:
            return False
        config = self._everything
        mine = config.get(leaf, ZERO)
        config = {**config, leaf: mine.with_(register, mine[index] & ~offered | value & offered)}
        return any((cpuid.get(leaf, ZERO)[index] ^ value) & mask == 0 for cpuid in self._td(self.xfam, config))

    @cached_property
    def _everything(self) -> Mapping[Leaf, Registers]:
        """Every feature that can be configured; 0 for numbers that the module checks, which stands for its own."""
        masks = {leaf: mask & self._offer.cpuid.get(leaf, ZERO) for leaf, mask in self._module.configurable.items()}
        config = {leaf: mask for leaf, mask in masks.items() if leaf.number != _TOPOLOGY}
        if _SIGNATURE in config:
            config[_SIGNATURE] = config[_SIGNATURE].with_("eax", 0)
        seven = Leaf(7, 0)
        if seven in config and (not self._platform.tsx_ctrl or config[seven] & _TSX != _TSX):
            config[seven] = config[seven].without(_TSX)
        return config

    @cached_property
    def _tds(self) -> tuple[Cpuid, ...]:
        return tuple(self._extremes())

    def _extremes(self) -> Iterator[Cpuid]:
        for xfam in (0, self.xfam):
            for config in ({}, self._everything):
                yield from self._td(xfam, config)
        topology = {Leaf(_TOPOLOGY, n): level for n, level in enumerate(_LEVELS)}
        if all(level & self._offer.cpuid.get(leaf, ZERO) == level for leaf, level in topology.items()):
            yield from self._td(self.xfam, {**self._everything, **topology})
        attributes = self._module.attributes_on(self._platform) & self._offer.attributes
        for n in range(attributes.bit_length()):
            if attributes >> n & 1:
                yield from self._td(self.xfam, self._everything, 1 << n)

    def _td(self, xfam: int, config: Mapping[Leaf, Registers], attributes: int = 0) -> Iterator[Cpuid]:
        """The TD's CPUID; nothing where the module refuses it."""
        module = self._module
        params = TdParams(attributes | module.attributes_fixed1, xfam | module.xfam_fixed1, config)
        try:
            yield init_td(module, self._platform, params).cpuid
        except SeamcallError:
            return
