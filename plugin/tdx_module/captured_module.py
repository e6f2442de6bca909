"""A TDX module as a capture saw it on a host: a known version's rules, with what that host lets a VMM configure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from plugin.cpuid import ZERO, Leaf, Registers
from plugin.tdx_module.errors import BadModule
from plugin.tdx_module.module import ModuleVersion, Row


def captured_module(path: str, known: Callable[[str], ModuleVersion]) -> ModuleVersion:
    """Read the "tdx-module" object of a profile that ``tdx-cpuid capture`` wrote; the version is named by its path.

    ``known`` finds the version that the profile says it is like, by name. Raises BadModule with what is wrong.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data: Any = json.load(file)["tdx-module"]
        base = known(data["like"])
        captured = {
            Leaf.parse(leaf): Registers._make([int(word, 16) for word in words.split()])
            for leaf, words in data["configurable"].items()
        }
        called = f"version {data['version']}" if data.get("version") else "of a version that its kernel did not tell"
    except OSError as error:
        raise BadModule(path, f"cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadModule(path, f'has no whole "tdx-module" object ({type(error).__name__}: {error})') from error
    rows = {leaf: _row(leaf, index, mask, base.rows.get(leaf)) for index, (leaf, mask) in enumerate(captured.items())}
    others = {
        leaf: row._replace(config_index=None, config_direct=ZERO, allow_direct=ZERO)
        for leaf, row in base.rows.items()
        if leaf not in rows
    }
    return ModuleVersion(
        path,
        rows | others,
        rules=base.rules,
        attributes=(base.attributes_supported, base.attributes_fixed1),
        attributes_need=base.attributes_need,
        xfam=(base.xfam_mask, base.xfam_fixed1),
        family_models=base.family_models,
        minimum_native_leaf=base.minimum_native_leaf,
        guest=base.guest,
        rcx=base.rcx,
        source=f"{path}: captured, {called}; what is not configurable is as in {base.name}",
        notes=base.notes,
    )


def _row(leaf: Leaf, index: int, mask: Registers, known: Row | None) -> Row:
    """A configurable leaf: what the known version has there, with the captured mask."""
    if known is None:
        return Row(leaf, index, mask, ZERO, ZERO, ZERO, ZERO, False, ZERO, ZERO, ())
    allowed = known.allow_direct & mask
    return known._replace(
        config_index=index,
        config_direct=mask.without(allowed),
        allow_direct=allowed,
        fixed1=known.fixed1.without(mask.without(known.configurable)),
        fixed0_or_dynamic=known.fixed0_or_dynamic.without(mask.without(known.configurable)),
    )
