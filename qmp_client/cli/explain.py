"""``tdx-cpuid explain BIT``: what a bit is, who controls it, and how to turn it on or off."""

from __future__ import annotations

import sys

import click

from qmp_client.cli.completion import MODULE
from qmp_client.cli.names import a_module
from qmp_client.errors import UsageError

EXAMPLES = """
\b
Examples:
  tdx-cpuid explain waitpkg
  tdx-cpuid explain 7.0.ecx.5
  tdx-cpuid explain 0x80000008.eax
"""


@click.command("explain", short_help="Say what a bit is and who controls it.", epilog=EXAMPLES)
@click.argument("bit")
@click.option(
    "--module", type=MODULE, help="Say how to turn it on or off with this module version.  [default: the newest]"
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(bit: str, module: str | None, form: str) -> int:
    """Explain a CPUID bit or field: by name, or by place as in 7.0.ecx.5; a register or leaf gives all its fields."""
    from plugin.cpuid.fields import UnknownField, find  # noqa: PLC0415
    from plugin.kvm.device.tdx import UNSUPPORTED_CPUID  # noqa: PLC0415
    from plugin.tdx_module import load_module, load_platform, platform_names, published_names  # noqa: PLC0415
    from qmp_client.explain.explain import Kvm, explain  # noqa: PLC0415
    from qmp_client.reconcile.news import BY_KVM  # noqa: PLC0415

    try:
        things = find(bit)
    except UnknownField as error:
        raise UsageError(str(error)) from error
    modules = [load_module(name) for name in published_names()]
    platforms = [load_platform(name) for name in platform_names()]
    about = a_module(module) if module else modules[-1]
    explanations = [explain(thing, modules, platforms, Kvm(UNSUPPORTED_CPUID, BY_KVM), about) for thing in things]
    if form == "json":
        import msgspec  # noqa: PLC0415

        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(explanations), indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        from qmp_client.explain.show import show  # noqa: PLC0415

        show(explanations, sys.stdout)
    return 0
