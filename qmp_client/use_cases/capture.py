"""What a TDX host offers, written down to be simulated elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from plugin.kvm.native_cpuid import NoNativeCpuid, native_platform
from plugin.tdx_module import published_names
from qmp_client.capture.kvm import NoTdx, ask
from qmp_client.capture.missing import five_lines
from qmp_client.capture.profile import profile, to_text
from qmp_client.errors import MissingError
from qmp_client.files import check_writable, write
from qmp_client.names import a_module
from qmp_client.qemu import tdx_host


class Request(NamedTuple):
    """What ``capture`` was asked."""

    file: Path | None


def run(request: Request) -> int:
    """Write this host's profile. Raises MissingError, with five lines to report, where there is no TDX."""
    check_writable([request.file])
    release = os.uname().release
    try:
        offer = ask()
        processor = native_platform()
    except NoTdx as error:
        raise MissingError(
            f"no TDX to capture: {error}",
            quoted=five_lines(Path("/"), release),
            hint="put these lines first in a report about it",
        ) from error
    except NoNativeCpuid as error:
        raise MissingError(str(error)) from error
    known = {name: a_module(name) for name in published_names()}
    kernel = {"release": release, "version": os.uname().version}
    text = to_text(profile(offer, processor, kernel, known, tdx_host.module_version()))
    if request.file is None:
        sys.stdout.write(text)
    else:
        write(request.file, text)
    return 0
