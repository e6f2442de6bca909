"""A QEMU command line that the user has already: what it says about the TD, and the little that has to be added.

Pure. The user's own words stay, in their order. Which options take an argument, and how values are written, is as in
QEMU's own option table (``qemu-options.hx``) and keyval format (``util/keyval.c``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from plugin.strict_json import NotJson, from_json
from qmp_client.errors import UsageError
from qmp_client.qemu import config_file
from qmp_client.qemu.command_line import Machine, cpu_option, guest_object, is_named_model

# fmt: off
WITHOUT_ARGUMENT = frozenset({
    "h", "help", "version", "mem-prealloc", "snapshot", "usb", "nographic", "full-screen", "win2k-hack",
    "no-fd-bootchk", "preconfig", "S", "s", "enable-kvm", "xen-attach", "xen-domid-restrict", "no-reboot",
    "no-shutdown", "daemonize", "only-migratable", "nodefaults", "semihosting", "no-user-config",
    "enable-sync-profile", "perfmap", "jitdump", "no-hpet", "no-acpi", "singlestep", "enable-fips", "sdl", "curses",
})
# fmt: on
"""The options that stand alone; all others take the next word. The last few are of older releases."""

DISPLAYS = frozenset({"display", "nographic", "vnc", "spice", "sdl", "curses"})
SOCKETS = frozenset({"chardev", "qmp", "qmp-pretty", "monitor", "serial", "parallel", "gdb"})
OTHER_GUESTS = ("sev-guest", "sev-snp-guest", "igvm-cfg", "s390-pv-guest")
WRAPPERS = frozenset({"sudo", "doas", "env", "nice", "numactl", "taskset", "strace", "gdb", "systemd-run", "nohup"})
REFUSED = {
    "daemonize": "-daemonize puts QEMU out of reach: leave it out; the guest is ended after the report anyway",
    "incoming": "-incoming takes CPUID from the machine that the guest comes from, so there is nothing to negotiate",
    "loadvm": "-loadvm takes CPUID from the snapshot, so there is nothing to negotiate",
    "add-fd": "-add-fd passes descriptors on that are not open here: give QEMU the files by name",
    "h": "-h ends QEMU at once",
    "help": "-help ends QEMU at once",
    "version": "-version ends QEMU at once",
}
DEFAULT_TYPE = "q35"
TD = "tdx-cpuid"
"""What the TD is called where it is added; nobody else's object is."""
MONITOR = f"{TD}-qmp"
"""Another name than the TD's: since QEMU 11.1 a monitor is an object as well."""


class Option(NamedTuple):
    """One option as it was written, without its dashes; a disk image that stands alone has no name."""

    name: str
    value: str | None = None


class OwnCommandLine(NamedTuple):
    """The user's command line, ready to be negotiated with."""

    machine: Machine
    """What it says about the TD, for the report."""
    words: tuple[str, ...]
    """The whole command line, but for the monitor."""
    additions: tuple[str, ...]
    """What was added or changed, one sentence each."""

    def arguments(self, monitor_fd: int) -> list[str]:
        """The command line with one more monitor, on an inherited, connected socket."""
        return [*self.words, "-chardev", f"socket,id={MONITOR},fd={monitor_fd}", "-qmp", f"chardev:{MONITOR}"]


def options(words: Iterable[str]) -> list[Option]:
    """Split what follows the program's name. Raises UsageError when the last option's argument is missing."""
    found = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            found.append(Option("", word))
            continue
        name = word.removeprefix("-").removeprefix("-")
        if name in WITHOUT_ARGUMENT:
            found.append(Option(name))
            continue
        value = next(rest, None)
        if value is None:
            raise UsageError(f"the command line ends behind {word}, which takes an argument")
        found.append(Option(name, value))
    return found


def keyval(value: str, first: str) -> dict[str, str]:
    """Read ``a,b=c,d`` (or JSON) into a mapping; a leading word without ``=`` is the value of the key ``first``."""
    if value.startswith("{"):
        try:
            parsed = from_json(value.encode(errors="surrogateescape"))
        except NotJson as error:
            raise UsageError(f"{value} is not JSON: {error}") from error
        return {key: _as_text(item) for key, item in parsed.items()}
    found: dict[str, str] = {}
    for number, part in enumerate(value.replace(",,", "\0").split(",")):
        key, equals, item = part.replace("\0", ",").partition("=")
        if number == 0 and not equals:
            found[first] = key
        elif key:
            found[key] = item if equals else "on"
    return found


def _as_text(item: object) -> str:
    return {True: "on", False: "off"}[item] if isinstance(item, bool) else str(item)


def adapt(
    words: Sequence[str], qemu: Path, firmware: Path, *, patched: bool = True, configs: Mapping[str, str] | None = None
) -> OwnCommandLine:
    """Make the user's command line one that can be negotiated with.

    ``words`` begins with the program's name, for which ``qemu`` is run; ``firmware`` is used where the line names
    none. ``patched`` QEMUs are told to take named CPU models. ``configs`` are the contents of the files that
    -readconfig names (``config_files``). Raises UsageError for what cannot be negotiated with.
    """
    if Path(words[0]).name in WRAPPERS:
        raise UsageError(f"{words[0]} is not QEMU: put it in front of tdx-cpuid, and QEMU's own command line behind --")
    given = options(words[1:])
    line = _Line(given, configs or {})
    for option in line.read():
        _refuse(option)
    line.hold()
    line.accelerator()
    line.td(named_models=patched)
    line.processor()
    line.image(firmware)
    if not DISPLAYS & {option.name for option in line.read()}:
        line.add("display", "none")
    line.unblock()
    machine = Machine(
        qemu=qemu,
        firmware=Path(line.last("bios") or firmware),
        cpu=line.last("cpu") or "host",
        smp=(line.last("smp") or "1").removeprefix("cpus="),
        memory=line.last("m") or "QEMU's default",
        machine=line.machine().get("type", DEFAULT_TYPE),
        stock=not patched,
    )
    return OwnCommandLine(machine, (str(qemu), *line.words()), tuple(line.said))


def config_files(words: Sequence[str]) -> list[str]:
    """The files that -readconfig names."""
    return [option.value or "" for option in options(words[1:]) if option.name == "readconfig"]


def names_firmware(words: Sequence[str]) -> bool:
    """Whether the command line has firmware of its own."""
    return any(option.name in ("bios", "pflash") for option in options(words[1:]))


def _refuse(option: Option) -> None:
    """Raise UsageError for an option that leaves nothing to negotiate."""
    if option.name in REFUSED:
        raise UsageError(REFUSED[option.name])
    value = option.value or ""
    if option.name in ("cpu", "machine", "M", "device", "accel", "object") and value.split(",")[-1] in ("help", "?"):
        raise UsageError(f"-{option.name} {value} prints a list and ends QEMU")
    if option.name in ("object", "chardev", "netdev", "nic", "net", "drive", "blockdev", "device"):
        passed = keyval(value, "type").keys() & {"fd", "fds", "vhostfd", "vhostfds"}
        if passed:
            raise UsageError(
                f"-{option.name} {value} is given a descriptor that is not open here",
                hint="libvirt passes descriptors; replace them by names, or leave the device out",
            )


class _Line:
    """A command line under change."""

    def __init__(self, given: Sequence[Option], configs: Mapping[str, str]) -> None:
        self._given = list(given)
        self._configs = configs
        self._added: list[Option] = []
        self.said: list[str] = []

    def words(self) -> list[str]:
        """The words behind the program's name."""
        found = []
        for name, value in [*self._given, *self._added]:
            found += [f"-{name}"] if name else []
            found += [] if value is None else [value]
        return found

    def add(self, name: str, value: str | None = None) -> None:
        """Append an option and say so."""
        self._added.append(Option(name, value))
        self.said.append(f"added to your command line: -{name}" + (f" {value}" if value is not None else ""))

    def change(self, old: Option, value: str) -> None:
        """Give an option of the user's another value and say so. Raises UsageError for one of a file."""
        if old not in self._given:
            raise UsageError(
                f"-readconfig has {old.name} {old.value}, which must be {value}",
                hint="write it so in the file, or put it on the command line",
            )
        self._given[self._given.index(old)] = Option(old.name, value)
        self.said.append(f"changed in your command line: -{old.name} {value}")

    def read(self) -> Iterator[Option]:
        """The options in the order in which QEMU reads them, those of -readconfig files in their place."""
        for option in [*self._given, *self._added]:
            yield option
            if option.name == "readconfig":
                yield from (Option(*said) for said in config_file.options(self._configs.get(option.value or "", "")))

    def all(self, *names: str) -> list[Option]:
        """The options of these names, in the order in which QEMU reads them."""
        return [option for option in self.read() if option.name in names]

    def last(self, name: str) -> str | None:
        """The value that counts where an option replaces an earlier one."""
        found = self.all(name)
        return found[-1].value if found else None

    def machine(self) -> dict[str, str]:
        """All -machine options; QEMU merges them."""
        merged: dict[str, str] = {}
        for option in self.all("machine", "M"):
            merged |= keyval(option.value or "", "type")
        return merged

    def hold(self) -> None:
        """Nothing may be decided before the choice is fed, and the guest shall not run."""
        for name in ("preconfig", "S"):
            if not self.all(name):
                self.add(name)

    def accelerator(self) -> None:
        """A TD needs KVM; other accelerators may stand behind it."""
        named = [keyval(option.value or "", "accel")["accel"] for option in self.all("accel")]
        named += ["kvm"] if self.all("enable-kvm") else []
        named += self.machine().get("accel", "").split(":") if "accel" in self.machine() else []
        if named and "kvm" not in named:
            raise UsageError(f"a TD needs KVM, and this command line runs on {', '.join(named)}")
        if not named:
            self.add("accel", "kvm")

    def td(self, *, named_models: bool) -> None:
        """Make the machine a TD, unless it is one."""
        objects = [(option, keyval(option.value or "", "qom-type")) for option in self.all("object")]
        for _, fields in objects:
            if fields.get("qom-type") in OTHER_GUESTS:
                raise UsageError(f"this command line builds a guest of another kind: -object {fields['qom-type']}")
        guests = [(option, fields) for option, fields in objects if fields.get("qom-type") == "tdx-guest"]
        machine = self.machine()
        supported = machine.get("confidential-guest-support")
        if supported and supported not in {fields.get("id") for _, fields in objects}:
            raise UsageError(f"-machine confidential-guest-support={supported}: there is no -object with that id")
        if machine.get("kernel-irqchip", "split") != "split":
            raise UsageError(f"a TD needs kernel-irqchip=split, and -machine says {machine['kernel-irqchip']}")
        cpu = self.last("cpu") or "host"
        more = [] if "type" in machine else [DEFAULT_TYPE]
        more += [] if "kernel-irqchip" in machine or guests else ["kernel-irqchip=split"]
        if not guests:
            self.add("object", (guest_object(cpu) if named_models else "tdx-guest,id=tdx0").replace("tdx0", TD))
            more.append(f"confidential-guest-support={TD}")
        elif not supported:
            more.append(f"confidential-guest-support={guests[0][1].get('id', '')}")
        if more:
            self.add("machine", ",".join(more))
        if guests and named_models and is_named_model(cpu) and "x-named-cpu-models" not in guests[0][1]:
            self.change(guests[0][0], _with(guests[0][0].value or "", "x-named-cpu-models"))

    def processor(self) -> None:
        """A model of its own takes the host's address width, as a TD has no other."""
        given = self.all("cpu")
        if not given:
            self.add("cpu", "host")
        elif cpu_option(given[-1].value or "") != given[-1].value:
            self.change(given[-1], cpu_option(given[-1].value or ""))

    def image(self, firmware: Path) -> None:
        """A TD starts from -bios."""
        if any(keyval(option.value or "", "file").get("if") == "pflash" for option in self.all("drive")) or any(
            name.startswith("pflash") for name in self.machine()
        ):
            raise UsageError("a TD takes its firmware from -bios, and this command line has it in pflash")
        if not self.all("bios"):
            self.add("bios", str(firmware))

    def unblock(self) -> None:
        """No socket may hold QEMU up until somebody connects to it."""
        for option in self.all(*SOCKETS):
            value = option.value or ""
            fields: Mapping[str, str] = keyval(value, "type")
            serves = fields.get("server") == "on" and "nowait" not in fields
            if serves and fields.get("wait", "on") == "on":
                self.change(option, _with(value, "wait", on=False))


def _with(value: str, key: str, *, on: bool = True) -> str:
    if value.startswith("{"):
        return json.dumps(json.loads(value) | {key: on})
    return f"{value},{key}={'on' if on else 'off'}"
