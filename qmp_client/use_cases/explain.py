"""What a bit is, who controls it, and how to turn it on or off."""

from __future__ import annotations

import sys
from typing import NamedTuple

from plugin.cpuid.fields import UnknownField, find
from plugin.kvm.policy import ADDED_CPUID, UNSUPPORTED_CPUID
from plugin.tdx_module import platform_names, published_names
from qmp_client import stdout
from qmp_client.errors import UsageError
from qmp_client.explain.explain import Kvm, explain
from qmp_client.explain.show import show
from qmp_client.names import a_module, a_platform


class Request(NamedTuple):
    """What ``explain`` was asked."""

    bit: str
    module: str | None
    form: str


def run(request: Request) -> int:
    """Explain a bit, field, register or leaf. Raises UsageError for one that does not exist."""
    try:
        things = find(request.bit)
    except UnknownField as error:
        raise UsageError(str(error)) from error
    modules = [a_module(name) for name in published_names()]
    platforms = [a_platform(name) for name in platform_names()]
    about = a_module(request.module) if request.module else modules[-1]
    explanations = [explain(thing, modules, platforms, Kvm(UNSUPPORTED_CPUID, ADDED_CPUID), about) for thing in things]
    if request.form == "json":
        stdout.put_json(explanations)
    else:
        show(explanations, sys.stdout)
    return 0
