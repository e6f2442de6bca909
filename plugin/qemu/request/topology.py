"""``-smp``: how many of each topology level, and where each level begins in an APIC id."""

from typing import NamedTuple

from plugin.qemu.request.errors import Refused, Unpredictable

_LEVELS = ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads")
_OF_OTHER_MACHINES = ("drawers", "books", "clusters")
MAX_CPUS = 255
"""More vCPUs need devices that a predicted machine does not have."""


class Topology(NamedTuple):
    """A package of the machine. The APIC id of vCPU 0 is 0."""

    cpus: int
    dies: int
    modules: int
    cores: int
    threads: int

    @property
    def threads_per_package(self) -> int:
        """Logical CPUs of a package."""
        return self.dies * self.modules * self.cores * self.threads

    def offset(self, level: str) -> int:
        """The APIC id bit at which ids of a level (``core`` ... ``socket``) begin."""
        below = {
            "core": (self.threads,),
            "module": (self.threads, self.cores),
            "die": (self.threads, self.cores, self.modules),
            "socket": (self.threads, self.cores, self.modules, self.dies),
        }
        return sum((count - 1).bit_length() for count in below[level])

    def threads_of(self, level: str) -> int:
        """Logical CPUs of one ``core``, ``module``, ``die`` or ``socket``."""
        per_module = self.threads * self.cores
        return {
            "core": self.threads,
            "module": per_module,
            "die": per_module * self.modules,
            "socket": self.threads_per_package,
        }[level]


def parse(text: str) -> Topology:
    """Read ``-smp`` as a q35 machine of today does (machine_parse_smp_config). Raises Refused, Unpredictable."""
    given = _given(text)
    if any(count == 0 for count in given.values()):
        raise Refused(f"-smp {text}: every count must be greater than 0")
    if other := [name for name in _OF_OTHER_MACHINES if given.get(name, 1) > 1]:
        raise Refused(f"-smp {text}: this machine has no {other[0]}")
    cpus, maximum = given.get("cpus", 0), given.get("maxcpus", 0)
    dies, modules = given.get("dies", 1), given.get("modules", 1)
    sockets, cores, threads = given.get("sockets", 0), given.get("cores", 0), given.get("threads", 0)
    if not cpus and not maximum:
        sockets, cores, threads = sockets or 1, cores or 1, threads or 1
    else:
        maximum = maximum or cpus
        if not cores:
            sockets, threads = sockets or 1, threads or 1
            cores = maximum // (sockets * dies * modules * threads)
        elif not sockets:
            threads = threads or 1
            sockets = maximum // (dies * modules * cores * threads)
        threads = threads or maximum // (sockets * dies * modules * cores)
    total = sockets * dies * modules * cores * threads
    maximum = maximum or total
    cpus = cpus or maximum
    if total != maximum:
        raise Refused(f"-smp {text}: the levels multiply to {total} CPUs, but there are {maximum} at most")
    if maximum < cpus:
        raise Refused(f"-smp {text}: {cpus} CPUs are more than the {maximum} that there can be")
    if maximum > MAX_CPUS:
        raise Unpredictable(f"-smp {text}: machines of more than {MAX_CPUS} CPUs are not modelled")
    return Topology(cpus, dies, modules, cores, threads)


def _given(text: str) -> dict[str, int]:
    given: dict[str, int] = {}
    for position, word in enumerate(text.split(",")):
        name, equals, value = word.partition("=")
        if not equals and position == 0:
            name, value = "cpus", word
        if name not in (*_LEVELS, "cpus", "maxcpus"):
            raise Refused(f"-smp {text}: there is no {name!r}")
        if not value.isdecimal():
            raise Unpredictable(f"-smp {text}: {name} is not a plain decimal number")
        given[name] = int(value)
    return given
