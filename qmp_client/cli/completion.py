"""Names that the shell completes. Nothing is loaded for it but when the shell asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Name(click.ParamType[Any]):
    """A name out of ``plugin.tdx_module``, or a file."""

    name = "text"

    def __init__(self, names: str, *more: str) -> None:
        self._names = names
        self._more = more

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The known names that begin like this; files where none does."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  the shell waits only when it asks

        from plugin import tdx_module  # noqa: PLC0415  likewise

        known = [*getattr(tdx_module, self._names)(), *self._more]
        found = [CompletionItem(name) for name in known if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


MODULE = _Name("module_names")
PLATFORM = _Name("platform_names", "native")
