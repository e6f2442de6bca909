"""What hangs on each XFAM bit, turned round from the rows of a module's table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from plugin.cpuid import REGISTERS, Bit
from plugin.tdx_module import ModuleVersion


@lru_cache
def xfam_features(module: ModuleVersion) -> Mapping[int, list[Bit]]:
    """XFAM bit to the feature bits that are cleared without it."""
    features: dict[int, list[Bit]] = {}
    for row in module.rows.values():
        for n, mask in row.gates:
            features.setdefault(n, []).extend(
                Bit(row.leaf, register, position)
                for register, bits in zip(REGISTERS, mask, strict=True)
                for position in range(32)
                if bits >> position & 1
            )
    return features
