"""The names of `typing` that this package needs, without loading `typing`.

It and what it brings along (`re`, `enum`) take 6 ms, as much as Python itself, and no simulated KVM answers before
that. Type checkers see the real names. At run time there is a NamedTuple of equal behaviour, and the others say
nothing. Modules that use them have `from __future__ import annotations`.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, Protocol, TypeAlias
else:
    Any = ClassVar = Literal = NoReturn = Protocol = TypeAlias = object

    class _FromAnnotations(type):
        """Turns a class body into a `collections.namedtuple` with these fields, defaults and methods."""

        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body.get("__annotations__", {})
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                if key not in fields and key != "__module__":
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_FromAnnotations):
        """As `typing.NamedTuple`."""


__all__ = ["TYPE_CHECKING", "Any", "ClassVar", "Literal", "NamedTuple", "NoReturn", "Protocol", "TypeAlias"]
