"""``tdx-cpuid capture``: write down what a TDX host offers, to simulate it elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from qmp_client.errors import MissingError
from qmp_client.files import check_writable, write
from qmp_client.qemu import tdx_host

EXAMPLES = """
\b
Examples:
  tdx-cpuid capture host.json                                        (on the TDX host; needs only /dev/kvm)
  tdx-cpuid negotiate --platform host.json --module host.json        (anywhere)
  tdx-cpuid sim --module 1.5.05 -- tdx-cpuid capture try.json        (without TDX, to see what it looks like)
"""


@click.command("capture", short_help="Write down what this TDX host offers, to simulate it.", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
def command(file: Path | None) -> int:
    """Write this host's processor, KVM and TDX module into FILE (standard output without one).

    Without TDX it says in five lines what is missing, and the exit status is 3.
    """
    from plugin.kvm.native_cpuid import NoNativeCpuid, native_platform  # noqa: PLC0415
    from plugin.tdx_module import load_module, published_names  # noqa: PLC0415
    from qmp_client.capture.kvm import NoTdx, ask  # noqa: PLC0415
    from qmp_client.capture.profile import profile, to_text  # noqa: PLC0415

    check_writable([file])
    release = os.uname().release
    try:
        offer = ask()
        processor = native_platform()
    except NoTdx as error:
        from qmp_client.capture.missing import five_lines  # noqa: PLC0415

        raise MissingError(
            f"no TDX to capture: {error}",
            quoted=five_lines(Path("/"), release),
            hint="put these lines first in a report about it",
        ) from error
    except NoNativeCpuid as error:
        raise MissingError(str(error)) from error
    known = {name: load_module(name) for name in published_names()}
    kernel = {"release": release, "version": os.uname().version}
    text = to_text(profile(offer, processor, kernel, known, tdx_host.module_version()))
    if file is None:
        sys.stdout.write(text)
    else:
        write(file, text)
    return 0
