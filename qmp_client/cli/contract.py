"""``tdx-cpuid contract OLD NEW``: what a module update does to VMMs and guests."""

from __future__ import annotations

import sys

import click

from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.names import a_module, a_platform

EXAMPLES = """
\b
Examples:
  tdx-cpuid contract 1.0 1.5.05
  tdx-cpuid contract 1.5.05 1.5.34 --platform granite-rapids --format markdown
"""


@click.command("contract", short_help="Compare two versions of the TDX module.", epilog=EXAMPLES)
@click.argument("old", type=MODULE)
@click.argument("new", type=MODULE)
@click.option("--platform", "processor", type=PLATFORM, help="Judge by what this processor has.  [default: any]")
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Show every bit, with or without a name.")
def command(old: str, new: str, processor: str | None, form: str, everything: bool) -> int:
    """Compare two TDX module versions: every bit whose control changes, and which guarantees that breaks.

    Exit status 1 when a guarantee is broken.
    """
    from qmp_client.contract.compare import compare  # noqa: PLC0415

    contract = compare(a_module(old), a_module(new), a_platform(processor) if processor else None)
    if form == "json":
        import msgspec  # noqa: PLC0415

        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(contract), indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        from qmp_client.contract import show  # noqa: PLC0415

        if form == "markdown":
            click.echo(show.markdown(contract, everything=everything), nl=False)
        else:
            show.show(contract, sys.stdout, everything=everything)
    return 0 if contract.kept else 1
