"""Writes docs/man/tdx-cpuid.1 from the commands' own help, so that it cannot say anything else.

With --check it only says whether the file is up to date (exit status 1 if not).
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import click

from plugin.kvm.command import _parser
from qmp_client.cli.program import COMMANDS, program

PAGE = Path(__file__).resolve().parents[2] / "docs" / "man" / "tdx-cpuid.1"
WIDTH = 100


class Wide(argparse.RawDescriptionHelpFormatter):
    """The help of `sim` in the width of the others, whatever the terminal's."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH)


def escaped(text: str) -> str:
    """Text as roff takes it literally."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in lines)


def names() -> list[str]:
    """Every command, and behind a group its own commands, as ``baseline save``."""
    found = []
    for name in sorted(COMMANDS):
        command = import_module(COMMANDS[name]).command
        found += [name, *(f"{name} {sub}" for sub in sorted(getattr(command, "commands", {})))]
    return found


def help_of(name: str) -> str:
    """One command's help, as `--help` prints it."""
    if name == "sim":
        parser = _parser()
        parser.formatter_class = Wide
        return parser.format_help()
    group, _, sub = name.partition(" ")
    command = import_module(COMMANDS[group]).command
    if sub:
        command = command.commands[sub]
    with click.Context(
        command, info_name=f"tdx-cpuid {name}", max_content_width=WIDTH, terminal_width=WIDTH
    ) as context:
        text: str = command.get_help(context)
    return text


def page() -> str:
    """The whole page."""
    about, _, more = (program.help or "").partition("\n\n")
    parts = [
        '.\\" Written by scripts/man-page; do not edit.',
        '.TH TDX\\-CPUID 1 "" "tdx\\-cpuid" "User Commands"',
        ".SH NAME",
        "tdx\\-cpuid \\- " + escaped(about.rstrip(".")),
        ".SH SYNOPSIS",
        ".B tdx\\-cpuid",
        "COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH EXIT STATUS",
        escaped(" ".join(more.split())),
        ".SH COMMANDS",
    ]
    for name in names():
        parts += [f".SS {escaped(name)}", ".nf", escaped(help_of(name).rstrip()), ".fi"]
    parts += [
        ".SH ENVIRONMENT",
        ".TP", ".B TDX_CPUID_QEMU", "The QEMU to run where \\-\\-qemu names none.",
        ".TP", ".B TDX_CPUID_FIRMWARE", "The TDVF image where \\-\\-firmware names none.",
        ".TP", ".B XDG_CACHE_HOME", "Below it, in tdx\\-cpuid, lies what was built or fetched.",
        ".TP", ".B XDG_STATE_HOME",
        "Below it, in tdx\\-cpuid, lies the traceback of each command that ended with 5 "
        "(~/.local/state where it is not set).",
        ".SH SHELL COMPLETION",
        'For bash: eval "$(_TDX_CPUID_COMPLETE=bash_source tdx\\-cpuid)"',
        "For zsh and fish the same with zsh_source and fish_source.",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(
            0 if PAGE.exists() and PAGE.read_text() == page() else "docs/man/tdx-cpuid.1 is old: run scripts/man-page"
        )
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
