"""Module versions, platforms and hosts as the user names them."""

from __future__ import annotations

from plugin.kvm.host import MISSING, HostRefused, find_host
from plugin.tdx_module import ModuleVersion, Platform, TdxHost, UnknownName, load_module, load_platform
from plugin.tdx_module.guests import Guest, UnknownGuest, find_guest
from qmp_client.errors import MissingError, UsageError, nearest


def a_module(name: str) -> ModuleVersion:
    """The module version of that name. Raises UsageError with the nearest names."""
    try:
        return load_module(name)
    except UnknownName as error:
        raise UsageError(str(error)) from error


def a_platform(name: str) -> Platform:
    """The platform of that name, this machine's, or a file's. Raises UsageError with the nearest names."""
    if name == "native":
        from plugin.kvm.native_cpuid import NoNativeCpuid, native_platform  # noqa: PLC0415  rarely needed

        try:
            return native_platform()
        except NoNativeCpuid as error:
            raise MissingError(str(error)) from error
    try:
        return load_platform(name)
    except UnknownName as error:
        raise UsageError(str(error)) from error


def a_guest(name: str) -> Guest:
    """The guest of that name, or with those controls. Raises UsageError with what there is."""
    try:
        return find_guest(name)
    except UnknownGuest as error:
        raise UsageError(str(error), hint=nearest(error.word, error.known)) from error


def a_host(module: str, platform: str, *, strict: bool = False) -> TdxHost:
    """The host that a module version starts on. Raises UsageError and MissingError with what to do about it."""
    try:
        return find_host(module, platform, strict=strict)
    except HostRefused as error:
        raise (MissingError if error.status == MISSING else UsageError)(str(error), hint=error.hint) from error
