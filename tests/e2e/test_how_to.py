"""The how-to pages show what the commands really say: their console blocks are run, in order, in an empty folder."""

from __future__ import annotations

import doctest
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.release import only_with_the_written_down

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"```(console|sh run|toml grid\.toml)\n(.*?)```", re.S)
STEP = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", re.M)
TIMES = re.compile(r"\d+\.\d s(, \d+ cells a minute, \d+ jobs?)?")
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", ["matrix.md", "baselines.md"])
def test_a_page_shows_what_is_said(
    page: str, qemu: Path, environment: dict[str, str], firmware: Path, tmp_path: Path
) -> None:
    only_with_the_written_down(qemu)
    text = (ROOT / "docs" / "how-to" / page).read_text()
    here = tmp_path / "here"
    here.mkdir()
    (here / "OVMF.fd").symlink_to(firmware)
    steps = 0
    for kind, body in BLOCK.findall(text):
        if kind == "toml grid.toml":
            (here / "grid.toml").write_text(body)
            continue
        for command, said in STEP.findall(body) if kind == "console" else [(body, "")]:
            result = subprocess.run(
                ["sh", "-c", command], capture_output=True, text=True, cwd=here, env=environment, check=False
            )
            steps += 1
            assert "Traceback" not in result.stderr
            wanted = TIMES.sub("...", said)
            assert doctest.OutputChecker().check_output(wanted, result.stdout, SAME), (
                f"{command}\n{result.stdout}\n{result.stderr}"
            )
    assert steps > 3
