"""Help with examples everywhere, completion, and a man page that says what the help says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qmp_client.cli.program import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
SUB_COMMANDS = ("baseline save", "baseline check")
THERE = sorted(name for name, module in COMMANDS.items() if (ROOT / (module.replace(".", "/") + ".py")).exists())


@pytest.mark.parametrize("command", [*THERE, *SUB_COMMANDS])
def test_every_command_s_help_has_examples(command: str) -> None:
    result = subprocess.run([*PROGRAM, *command.split(), "--help"], capture_output=True, text=True, check=True)
    assert "Examples:" in result.stdout
    assert f"tdx-cpuid {command}" in result.stdout.partition("Examples:")[2]


def test_the_list_of_commands_is_in_whole_sentences() -> None:
    for words in ([], ["baseline"]):
        result = subprocess.run([*PROGRAM, *words, "--help"], capture_output=True, text=True, check=True)
        listed = result.stdout.partition("Commands:")[2].partition("Examples:")
        assert listed[0].count(".\n") == len(COMMANDS if not words else SUB_COMMANDS)
        assert "..." not in listed[0]
        assert "tdx-cpuid" in listed[2]


def completed(words: str) -> list[str]:
    code = "import sys; sys.argv = ['tdx-cpuid']; from qmp_client.cli.entry import main; main()"
    environment = {
        "_TDX_CPUID_COMPLETE": "bash_complete",
        "COMP_WORDS": f"tdx-cpuid {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return [line.partition(",")[2] for line in result.stdout.splitlines()]


def test_the_shell_completes_commands_options_and_values() -> None:
    assert completed("neg") == ["negotiate"]
    assert "--format" in completed("negotiate --for")
    assert completed("negotiate --platform gr") == ["granite-rapids"]
    assert completed("contract 1.5.3") == ["1.5.34"]
    assert {"1.0", "1.5.05"} <= set(completed("baseline save x --module 1"))
    assert completed("sim --rec") == ["--record"]
    assert {"table", "json"} <= set(completed("replay --format t") + completed("replay --format j"))


def test_the_man_page_is_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "scripts/manual/man_page.py", "--check"], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert check.returncode == 0, check.stderr


def test_the_man_page_is_one() -> None:
    """Where there is a man program to ask; its layout is plain enough to be checked by eye elsewhere."""
    text = (ROOT / "docs/man/tdx-cpuid.1").read_text()
    assert text.count(".nf\n") == text.count(".fi\n") == len(COMMANDS) + len(SUB_COMMANDS)
    if groff := shutil.which("groff"):
        result = subprocess.run(
            [groff, "-man", "-Tascii", "-ww"], input=text, capture_output=True, text=True, check=True
        )
        assert result.stderr == ""
