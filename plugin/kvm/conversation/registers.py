"""A vCPU's state in a record: by the names of its registers."""

from __future__ import annotations

from plugin.kvm.uapi.layout import Layout
from plugin.kvm.uapi.registers import BY_NAME
from plugin.typing import Any


def named(layout: Layout, data: bytes) -> dict[str, Any] | None:
    """The registers that are not 0, those of a part in an object of its own; None for a structure that has none."""
    known = BY_NAME.get(layout.name)
    if known is None:
        return None
    found: dict[str, Any] = {}
    for name, value in zip(known.fields, known.unpack(data), strict=True):
        shown = value.rstrip(b"\0").hex() if isinstance(value, bytes) else value
        part, _, field = name.partition(".")
        if not shown:
            continue
        if field:
            found.setdefault(part, {})[field] = shown
        else:
            found[part] = shown
    return found
