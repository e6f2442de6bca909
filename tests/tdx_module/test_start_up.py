"""Every start of the simulation loads the model, so it must not pull in what is slow to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import plugin

PROGRAM = """
import sys
from plugin.tdx_module import TdParams, init_td, load_module, load_platform
init_td(load_module("1.5.05"), load_platform("emerald-rapids"), TdParams(0, 3, {}))
print(*sys.modules)
"""


def test_loading_stays_light() -> None:
    root = Path(plugin.__file__).parent.parent
    # -S: what site-packages' .pth files import is not ours.
    run = subprocess.run([sys.executable, "-S", "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "plugin.tdx_module.init" in loaded
    assert loaded & {"asyncio", "csv", "dataclasses", "difflib", "inspect", "pathlib", "plugin.cpuid.fields"} == set()
