"""What stands between a command's options and the use case behind them: the one place where a use case is loaded.

A module of ``qmp_client.cli`` says which options a command has, and nothing of how it is done. Its door loads the
module of ``qmp_client.use_cases`` only when the command is really run, so that ``--help``, completion and the other
commands never wait for it, and hands it the options as its ``Request``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click


class Group(NamedTuple):
    """Options that several commands share, and that reach the use case as one field."""

    field: str
    """The field of the use case's ``Request``."""
    to: str
    """The NamedTuple that takes them: its module, a colon, its name."""
    options: tuple[click.Parameter, ...]


class Door(click.Command):
    """A command that is a use case: ``run(Request)`` in the module called ``to`` does it and returns the exit status.

    ``check`` looks at how options go together before anything is loaded; it raises UsageError.
    """

    def __init__(
        self,
        name: str,
        *,
        to: str,
        params: Sequence[click.Parameter | Group],
        check: Callable[[click.Context], None] | None = None,
        **texts: Any,
    ) -> None:
        self.groups = tuple(one for one in params if isinstance(one, Group))
        self.to = to
        self._check = check
        flat = [param for one in params for param in (one.options if isinstance(one, Group) else (one,))]
        super().__init__(name, params=flat, **texts)

    def invoke(self, ctx: click.Context) -> int:
        """Load the use case and run it."""
        if self._check is not None:
            self._check(ctx)
        use_case = import_module(self.to)
        words = dict(ctx.params)
        for group in self.groups:
            module, _, name = group.to.partition(":")
            words[group.field] = getattr(import_module(module), name)(
                **{option.name: words.pop(option.name) for option in group.options if option.name}
            )
        return int(use_case.run(use_case.Request(**words)))


def given(ctx: click.Context) -> dict[str, str]:
    """The parameters that the user gave, by name, each as it is spelled on the command line."""
    return {
        param.name: param.opts[0] if isinstance(param, click.Option) else "a command line behind --"
        for param in ctx.command.params
        if param.name and ctx.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE
    }
