"""`signal`, as the C module behind it: the enums that the `signal` module makes of every number take 3 ms."""

from plugin.typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["signal"]
