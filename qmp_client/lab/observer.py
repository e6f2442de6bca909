"""Who wants to know what an agent does; by itself, nobody."""

from __future__ import annotations

from qmp_client.lab.wire import Result


class Observer:
    """Told of what happens, in the agent's event loop."""

    def ended(self, result: Result, *, drifted: bool) -> None:
        """A job has its result; ``drifted``: and it showed that guests see another CPUID than before."""

    def began(self, running: int) -> None:
        """The number of jobs that run has changed."""

    def connected(self, is_connected: bool) -> None:
        """The broker was reached, or lost."""
