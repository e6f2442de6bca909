"""Every door leads somewhere: what a command's options are called is what its use case takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

import click
import pytest

from qmp_client import formats
from qmp_client.cli.door import Door
from qmp_client.cli.negotiate import command as negotiate
from qmp_client.cli.predict import command as predict
from qmp_client.cli.program import COMMANDS
from qmp_client.report.policy import DEFAULT
from tests.waiting import PATIENCE


def doors() -> Iterator[Door]:
    for module in COMMANDS.values():
        command = import_module(module).command
        yield from (
            one
            for one in (command.commands.values() if isinstance(command, click.Group) else [command])
            if isinstance(one, Door)
        )


@pytest.mark.parametrize("door", list(doors()), ids=lambda door: str(door.name))
def test_a_use_case_takes_what_its_options_are_called(door: Door) -> None:
    grouped = {option.name for group in door.groups for option in group.options}
    alone = {param.name for param in door.params} - grouped
    use_case = import_module(door.to)

    assert {*alone, *(group.field for group in door.groups)} == set(use_case.Request._fields)
    for group in door.groups:
        module, _, name = group.to.partition(":")
        assert {option.name for option in group.options} == set(getattr(import_module(module), name)._fields)


LOADED = """
import sys
from importlib import import_module
import_module(sys.argv[1])
print(*[name for name in sys.modules if name.startswith("qmp_client.use_cases.")])
"""


@pytest.mark.parametrize("module", COMMANDS.values())
def test_what_a_command_takes_is_known_without_its_use_case(module: str) -> None:
    """Help, completion and the other commands must not wait for it."""
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED, module], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert loaded.stdout.split() == []


def test_predict_says_what_it_fails_on_by_default() -> None:
    option = next(param for param in predict.params if param.name == "fail_on")
    assert isinstance(option, click.Option)
    assert f"[default: {DEFAULT}]" in str(option.help)


@pytest.mark.parametrize("door", [negotiate, predict], ids=lambda door: str(door.name))
def test_every_format_has_its_module(door: Door) -> None:
    option = next(param for param in door.params if param.name == "form")
    assert isinstance(option.type, click.Choice)
    for form in option.type.choices:
        assert callable(formats.load(form).put)
