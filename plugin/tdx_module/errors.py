"""What can go wrong: a SEAMCALL that fails, and a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable

from plugin.cpuid import Leaf, Register
from plugin.tdx_module import statuses
from plugin.typing import NamedTuple


class SeamcallError(Exception):
    """The TDX module refused a call.

    ``status`` is the 64-bit completion status, ``rcx`` the extended information the module leaves in RCX (0 if
    none), ``leaf`` the CPUID leaf at fault if there is one, and ``why`` a sentence for people.
    """

    def __init__(self, status: int, why: str, *, rcx: int = 0, leaf: Leaf | None = None) -> None:
        super().__init__(status, why)
        self.status = status
        self.rcx = rcx
        self.leaf = leaf
        self.why = why

    def __str__(self) -> str:
        return f"TDH.MNG.INIT: {statuses.describe(self.status)}: {self.why}"


def cpuid_refused(leaf: Leaf, why: str, *, names_leaf: bool = True) -> SeamcallError:
    """Build OPERAND_INVALID(CPUID_CONFIG) with RCX = leaf | sub-leaf << 32; 0 where a version does not say it."""
    rcx = leaf_operand(leaf) if names_leaf else 0
    return SeamcallError(statuses.OPERAND_INVALID | statuses.CPUID_CONFIG, why, rcx=rcx, leaf=leaf)


def leaf_operand(leaf: Leaf) -> int:
    """Encode a leaf the way the module puts it in RCX; no sub-leaf is 0xffffffff."""
    return leaf.number | (statuses.NO_SUBLEAF if leaf.subleaf is None else leaf.subleaf) << 32


class UnknownName(KeyError):
    """No module version or platform has this name; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        # Imported here because only a failing run needs it: difflib is slow to load.
        import difflib  # noqa: PLC0415

        names = tuple(known)
        super().__init__(name)
        self.kind = kind
        self.name = name
        self.nearest = tuple(difflib.get_close_matches(name, names, n=3, cutoff=0.4)) or names

    def __str__(self) -> str:
        return f"no {self.kind} is called {self.name!r}; did you mean {', '.join(self.nearest)}?"


class BadModule(UnknownName):
    """A module version that is given by a file, such as a captured profile, and cannot be had from it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__("TDX module version", path, ())
        self.problem = problem

    def __str__(self) -> str:
        return f"the module file {self.name} {self.problem}"


class UnknownRule(UnknownName):
    """A module version lists a special rule that this program does not have."""

    def __init__(self, version: str, rule: str, known: Iterable[str]) -> None:
        super().__init__("special rule", rule, known)
        self.version = version

    def __str__(self) -> str:
        return (
            f"TDX module {self.version} has the special rule {self.name!r}, which this tdx-cpuid does not know: the"
            f" version's file is damaged or made for a newer one; the nearest rules are {', '.join(self.nearest)}"
        )


class BadPlatform(UnknownName):
    """A platform that is given by a file, and cannot be had from it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__("platform", path, ())
        self.problem = problem

    def __str__(self) -> str:
        return f"the platform file {self.name} {self.problem}"


class Mismatch(NamedTuple):
    """Bits of the real processor that the module demands otherwise when it initialises (TDH.SYS.INIT)."""

    leaf: Leaf
    register: Register
    mask: int
    expected: int
    actual: int

    def __str__(self) -> str:
        return (
            f"{self.leaf}.{self.register}: the module demands {self.expected:#010x} under mask {self.mask:#010x}, "
            f"the processor has {self.actual:#010x}"
        )
