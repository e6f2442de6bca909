"""A TDX module as a capture saw it on a host: a known version's rules, with what that host lets a VMM configure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugin import document, strict_json
from plugin.cpuid import ZERO, Leaf, Registers
from plugin.tdx_module.classes import classes_of
from plugin.tdx_module.errors import BadModule, SeamcallError
from plugin.tdx_module.module import ModuleVersion, Row
from plugin.tdx_module.platform_file import hexadecimal


def captured_module(path: str, known: Callable[[str], ModuleVersion]) -> ModuleVersion:
    """Read the "tdx-module" object of a profile that ``tdx-cpuid capture`` wrote; the version is named by its path.

    ``known`` finds the version that the profile says it is like, by name. Raises BadModule with what is wrong.
    """
    name = document.name(path)
    try:
        data = strict_json.from_json(document.read(path))
    except document.Unreadable as error:
        raise BadModule(name, f"cannot be read: {error}") from error
    except strict_json.NotJson as error:
        raise BadModule(name, f"is not JSON: {error}") from error
    module = _module(name, data.get("tdx-module") if isinstance(data, dict) else None, known)
    try:
        classes_of(module, Leaf(1))
    except SeamcallError as error:
        raise BadModule(name, f"is not of a module that can make a TD: {error.why}") from error
    return module


def _module(name: str, data: Any, known: Callable[[str], ModuleVersion]) -> ModuleVersion:
    """Make the version of the decoded "tdx-module" object. Raises BadModule."""
    if not isinstance(data, dict):
        raise BadModule(name, 'has no "tdx-module" object')
    like, configurable, version = data.get("like"), data.get("configurable"), data.get("version") or ""
    if not isinstance(like, str) or like.endswith(".json"):
        raise BadModule(name, '"like" in its "tdx-module" does not name a version that is known')
    if not isinstance(configurable, dict):
        raise BadModule(name, 'has no "configurable" leaves in its "tdx-module"')
    if not isinstance(version, str):
        raise BadModule(name, '"version" in its "tdx-module" is no text')
    base = known(like)
    captured: dict[Leaf, Registers] = {}
    for text, words in configurable.items():
        leaf = _leaf(name, text, base)
        if leaf in captured:
            raise BadModule(name, f"has the leaf {leaf} twice")
        captured[leaf] = _registers(name, text, words)
    called = f"version {version}" if version else "of a version that its kernel did not tell"
    rows = {leaf: _row(leaf, index, mask, base.rows.get(leaf)) for index, (leaf, mask) in enumerate(captured.items())}
    others = {
        leaf: row._replace(config_index=None, config_direct=ZERO, allow_direct=ZERO)
        for leaf, row in base.rows.items()
        if leaf not in rows
    }
    return ModuleVersion(
        name,
        rows | others,
        rules=base.rules,
        attributes=(base.attributes_supported, base.attributes_fixed1),
        attributes_need=base.attributes_need,
        xfam=(base.xfam_mask, base.xfam_fixed1),
        family_models=base.family_models,
        minimum_native_leaf=base.minimum_native_leaf,
        guest=base.guest,
        rcx=base.rcx,
        source=f"{name}: captured, {called}; what is not configurable is as in {base.name}",
        notes=base.notes,
    )


def _leaf(name: str, text: str, base: ModuleVersion) -> Leaf:
    """The leaf, as the known version spells it: a kernel may see a sub-leaf where the module has none."""
    try:
        leaf = Leaf.parse(text)
    except ValueError as error:
        raise BadModule(name, f'"{text}" is not a leaf; one is like "0x7.0"') from error
    row = base.row_of(leaf)
    return leaf if row is None else row.leaf


def _registers(name: str, leaf: str, words: Any) -> Registers:
    try:
        return hexadecimal(words)
    except ValueError as error:
        raise BadModule(name, f"leaf {leaf} {error}") from error


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
