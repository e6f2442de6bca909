"""The module versions and platforms that there are: their names, and each loaded once."""

from __future__ import annotations

import os
from functools import lru_cache

from plugin.tdx_module.errors import BadModule, BadPlatform, UnknownName
from plugin.tdx_module.host import TdxHost, tdx_host
from plugin.tdx_module.json_file import read_json
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.module_file import read_module
from plugin.tdx_module.platform import Platform
from plugin.tdx_module.platform_file import platform_from_data, platform_from_file
from plugin.tdx_module.rules.table import rules_of

_MODULES, _PLATFORMS = [os.path.join(os.path.dirname(__file__), "data", kind) for kind in ("modules", "platforms")]


@lru_cache(maxsize=1)
def published_names() -> tuple[str, ...]:
    """Names of the module versions that Intel published, oldest first."""
    return tuple(sorted((name for name in _names(_MODULES) if name[0].isdigit()), key=_age))


@lru_cache(maxsize=1)
def module_names() -> tuple[str, ...]:
    """Names of the module versions that come with the project: the published ones, oldest first, then made-up ones."""
    return published_names() + tuple(sorted(name for name in _names(_MODULES) if not name[0].isdigit()))


@lru_cache(maxsize=1)
def platform_names() -> tuple[str, ...]:
    """Names of the platforms that come with the project."""
    return tuple(sorted(_names(_PLATFORMS)))


def _names(folder: str) -> list[str]:
    return [name[:-5] for name in os.listdir(folder) if name.endswith(".json")]


def _age(name: str) -> tuple[int, ...]:
    """Order versions by their numbers: 1.0.3 before 1.5.05 before 1.5.34 before 2.0.18."""
    return tuple([int(number) for number in name.split(".")])


@lru_cache(maxsize=16)
def load_module(name: str) -> ModuleVersion:
    """Load a module version by name, or from a captured profile (a path that ends in .json).

    Raises UnknownName with the nearest names; for a file BadModule, and for a rule that there is not UnknownRule, which
    are UnknownNames too.
    """
    if name.endswith(".json"):
        from plugin.tdx_module.captured_module import captured_module  # noqa: PLC0415 - rarely needed

        return captured_module(name, load_module)
    path = os.path.join(_MODULES, name + ".json")
    # The file itself answers for a known name; listing the folder is for the others.
    if "/" in name or not os.path.exists(path):
        raise UnknownName("TDX module version", name, module_names())
    try:
        module = read_module(path)
    except _DAMAGED as error:
        raise BadModule(path, _damage(error)) from error
    rules_of(module)
    return module


_DAMAGED = (OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError)
"""What reading one of the project's own files raises when it is not as it was installed."""


def _damage(error: Exception) -> str:
    return f"is damaged ({type(error).__name__}: {error}); install tdx-cpuid again"


@lru_cache(maxsize=8)
def load_platform(name: str) -> Platform:
    """Load a platform by name, or from the file that a path names.

    Raises UnknownName with the nearest names, BadPlatform for a file.
    """
    if "/" in name or name.endswith(".json"):
        return platform_from_file(name)
    path = os.path.join(_PLATFORMS, name + ".json")
    if not os.path.exists(path):
        raise UnknownName("platform", name, platform_names())
    try:
        data = read_json(path)
    except _DAMAGED as error:
        raise BadPlatform(path, _damage(error)) from error
    return platform_from_data(name, data)


def load_host(module: str, platform: str, *, strict: bool = False) -> TdxHost:
    """Load a module version and a platform by name. Raises UnknownName with the nearest names, PlatformRefused."""
    return tdx_host(load_module(module), load_platform(platform), strict=strict)
