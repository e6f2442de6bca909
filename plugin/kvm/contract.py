"""The line between the simulated KVM devices and the supervisor that serves them.

Devices know ioctls and structures; the supervisor knows processes, descriptors and system calls. Each sees
the other only through these types, so either can be tested without the other.
"""

from __future__ import annotations

from collections.abc import Callable

from plugin.cpuid.leaf import Registers
from plugin.typing import NamedTuple, Protocol


class BadAddress(Exception):
    """A user pointer that the calling process cannot read or write; answered as EFAULT."""

    def __init__(self, address: int, size: int) -> None:
        super().__init__(f"the caller has no {size} accessible bytes at {address:#x}")
        self.address = address
        self.size = size


class Rejected(Exception):
    """An ioctl that fails: the caller sees -1 and `errno`; `why` is for people (log and record).

    `commit` runs only once the kernel has taken the errno, as in `Reply`: who counts refusals counts them there.
    """

    def __init__(self, errno: int, why: str, commit: Callable[[], None] | None = None) -> None:
        super().__init__(why)
        self.errno = errno
        self.why = why
        self.commit = commit

    def then(self, step: Callable[[], None]) -> Rejected:
        """Let `step` follow the commit; return this exception."""
        self.commit = then(self.commit, step)
        return self


def then(first: Callable[[], None] | None, second: Callable[[], None]) -> Callable[[], None]:
    """Return a commit of two steps, of which the first may be missing."""

    def both() -> None:
        if first is not None:
            first()
        second()

    return both


class Memory(Protocol):
    """The memory of the process that made the call, by its own virtual addresses.

    When a signal ends the call before the answer, what was read from it is put back.
    """

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes. Raises BadAddress."""

    def write(self, address: int, data: bytes) -> None:
        """Write all of `data`. Raises BadAddress; a part may have been written then, as in the kernel."""


class SharedPages(Protocol):
    """The bytes behind a descriptor, as the caller sees them through mmap."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...
    def __setitem__(self, index: slice, value: bytes, /) -> None: ...


class Reply(NamedTuple):
    """An ioctl that succeeds with `value`.

    `commit` runs only once the kernel has taken the reply. Until then nothing may have changed: a signal may
    have ended the call, and the caller will repeat it.
    """

    value: int = 0
    commit: Callable[[], None] | None = None


class NewFile(NamedTuple):
    """A call that succeeds with a new descriptor: a memfd of `size` bytes, called `name` in /proc/PID/fd.

    KVM ioctls on it go to `handler`; None means plain memory, such as a guest_memfd. `commit` as in `Reply`.
    """

    handler: Device | None
    size: int
    name: str
    commit: Callable[[], None] | None = None


class Wait(NamedTuple):
    """No answer until a signal interrupts the caller, which then sees EINTR: KVM_RUN."""


class Execution(Protocol):
    """What runs the guest code of one vCPU: the door behind KVM_RUN."""

    def run(self, pages: SharedPages) -> Reply | Wait:
        """Answer a KVM_RUN that KVM's own checks let through; `pages` begin with the vCPU's struct kvm_run.

        A Reply says that the guest has exited, for the reason that is in `pages` by then; Wait, that it has not.
        """


class Device(Protocol):
    """What stands behind one kind of KVM descriptor."""

    kind: str  # "system", "vm" or "vcpu"

    def ioctl(self, request: int, argument: int, memory: Memory) -> Reply | NewFile | Wait:
        """Answer one ioctl: `request` is 32 bits, `argument` 64 bits. Raises Rejected, BadAddress."""

    def attached(self, shared: SharedPages) -> None:
        """Take the pages behind a vCPU's descriptor, which begin with struct kvm_run.

        Called for "vcpu" only, once, before its first ioctl.
        """


class Kvm(Protocol):
    """A whole simulated KVM: what opening /dev/kvm leads to."""

    def open(self) -> NewFile:
        """Answer an open of /dev/kvm; every open gets a descriptor of its own."""


class NativeCpuid(Protocol):
    """What the CPUID instruction answers inside the VMM's process, in place of this machine's processor."""

    def __call__(self, leaf: int, subleaf: int) -> Registers:
        """Return the four registers for EAX=`leaf`, ECX=`subleaf`."""
