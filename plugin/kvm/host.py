"""The host to simulate, from what a user typed: names, ``native``, or a platform's file."""

from __future__ import annotations

from plugin.tdx_module import (
    Platform,
    PlatformRefused,
    TdxHost,
    UnknownName,
    load_module,
    load_platform,
    platform_names,
    tdx_host,
)

USAGE = 2
MISSING = 3


class HostRefused(Exception):
    """There is no such host. ``status`` is the exit status for it, ``hint`` what to do."""

    def __init__(self, why: str, status: int = USAGE, hint: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.hint = hint


def find_host(module: str, platform: str, *, strict: bool = False) -> TdxHost:
    """Load a module version and a platform, and let the module start on it.

    ``native`` is this machine's processor. Raises HostRefused: for unknown names and bad files, a processor that the
    module does not start on (``strict``: with no bit assumed), and where CPUID cannot be read.
    """
    native = platform == "native"
    try:
        return tdx_host(load_module(module), _native() if native else load_platform(platform), strict=strict)
    except UnknownName as error:
        raise HostRefused(str(error)) from error
    except PlatformRefused as error:
        if native:
            raise HostRefused(str(error), MISSING, f"simulate one of {', '.join(platform_names())}") from error
        hint = "without --strict-platform the demanded bits are assumed" if strict else ""
        raise HostRefused(str(error), hint=hint) from error


def _native() -> Platform:
    """Read this machine's processor. Raises HostRefused where that cannot be."""
    from plugin.kvm.native_cpuid import NoNativeCpuid, native_platform  # noqa: PLC0415 - rarely needed

    try:
        return native_platform()
    except NoNativeCpuid as error:
        raise HostRefused(str(error), MISSING) from error
