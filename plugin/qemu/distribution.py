"""Fetch packages of another suite of this machine's distribution without touching its apt configuration.

Where to fetch from and which key to trust is read from the machine's own source lists; a private set of lists,
caches and indexes is used for the rest. apt verifies what it downloads.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from plugin.qemu.trouble import Missing, Trouble, last_lines, say


class Distribution(NamedTuple):
    """A distribution whose archive has what is wanted."""

    name: str
    archive: str  # the last part of its archive's URI
    keyring: str  # how the name of its archive's keyring begins
    aliases: tuple[str, ...]  # suites that stand for a release
    components: tuple[str, ...]
    suites: tuple[str, ...]  # where to look, the most likely first


DISTRIBUTIONS = {
    "debian": Distribution(
        name="Debian",
        archive="debian",
        keyring="debian-archive-",
        aliases=("stable", "testing", "unstable", "sid"),
        components=("main",),
        suites=("sid", "forky"),
    ),
    "ubuntu": Distribution(
        name="Ubuntu",
        archive="ubuntu",
        keyring="ubuntu-archive-",
        aliases=("devel",),
        components=("main", "universe"),
        suites=("resolute", "devel"),
    ),
}
"""By os-release(5)'s ID."""


class Wanted(NamedTuple):
    """A package to fetch, and what to say when it cannot be had."""

    package: str
    version: str  # how its version begins behind the epoch; "" = any
    source: bool  # the source package, not the binary one
    name: str  # for people, at the start of a sentence
    instead: str  # what they can do without it


class Archive(NamedTuple):
    """One entry of a source list, as far as it matters here."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str  # a path, a fingerprint or an armoured key; "" = the machine's default keys


def parse_deb822(text: str) -> list[Archive]:
    """Read a ``.sources`` file (sources.list(5), DEB822-STYLE FORMAT); disabled entries are left out."""
    archives = []
    for stanza in re.split(r"\n[ \t]*\n", "\n".join(_without_comments(text.splitlines()))):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in " \t":
                if name:
                    fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "uris" not in fields or fields.get("enabled", "yes").lower() in ("no", "false", "off", "0"):
            continue
        archives.append(
            Archive(
                types=tuple(fields.get("types", "").split()),
                uris=tuple(fields["uris"].split()),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", ""),
            )
        )
    return archives


def _without_comments(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if not line.startswith("#")]


ONE_LINE = re.compile(r"^\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$")


def parse_one_line(text: str) -> list[Archive]:
    """Read a ``.list`` file (sources.list(5), ONE-LINE-STYLE FORMAT)."""
    archives = []
    for line in text.splitlines():
        found = ONE_LINE.match(line.partition("#")[0])
        if not found:
            continue
        kind, options, uri, suite, components = found.groups()
        signed_by = ""
        for option in (options or "").split():
            key, _, value = option.partition("=")
            if key.lower() == "signed-by":
                signed_by = value
        archives.append(Archive((kind,), (uri,), (suite,), tuple(components.split()), signed_by))
    return archives


def configured_archives(etc_apt: Path) -> list[Archive]:
    """Every enabled entry of this machine's source lists."""
    archives = []
    lists = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    for path in lists:
        if path.suffix == ".sources":
            archives += parse_deb822(path.read_text(errors="replace"))
        elif path.suffix == ".list" and path.is_file():
            archives += parse_one_line(path.read_text(errors="replace"))
    return archives


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """Read os-release(5); empty where there is none."""
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def this_distribution(release: dict[str, str], wanted: Wanted) -> Distribution:
    """Return the distribution that os-release(5) names. Raises Missing where it is none of those known here."""
    known = DISTRIBUTIONS.get(release.get("ID", ""))
    if known is None:
        names = " or ".join(distribution.name for distribution in DISTRIBUTIONS.values())
        name = release.get("PRETTY_NAME", "another system")
        raise Missing(f"{wanted.name} is fetched from the archive of {names}, and this is {name}.\n{wanted.instead}")
    return known


def own_archive(
    distribution: Distribution, archives: list[Archive], release: dict[str, str], wanted: Wanted
) -> Archive:
    """Pick the distribution's own archive out of the configured ones.

    Raises Missing where the source lists do not show which one that is.
    """
    own = {release.get("VERSION_CODENAME", ""), *distribution.aliases}
    for archive in archives:
        if not own & set(archive.suites) or "main" not in archive.components:
            continue
        # Debian's cloud images name a list of mirrors, mirror+file:///etc/apt/mirrors/debian.list, and no key.
        last_part = archive.uris[0].rstrip("/").rpartition("/")[2].removesuffix(".list")
        if distribution.keyring in archive.signed_by or last_part == distribution.archive:
            return archive
    raise Missing(
        f"{wanted.name} is fetched from {distribution.name}'s archive, but no entry of /etc/apt/sources.list or"
        f" sources.list.d is recognizably {distribution.name}'s (suite {release.get('VERSION_CODENAME')}, component"
        f" main).\n{wanted.instead}"
    )


def fetch(wanted: Wanted, into: Path) -> Path:
    """Download the newest version that fits; return the .dsc or the .deb in ``into``.

    Raises Missing when no suite has one, Trouble when apt fails.
    """
    release = os_release()
    distribution = this_distribution(release, wanted)
    archive = own_archive(distribution, configured_archives(Path("/etc/apt")), release, wanted)
    apt = PrivateApt(into / "apt", distribution, archive, sources=wanted.source)
    seen = []
    for suite in distribution.suites:
        apt.update(suite)
        version = apt.newest(wanted.package, wanted.version)
        if version:
            say(f"downloading {wanted.package} {version}")
            return apt.fetch(wanted.package, version, into)
        seen.append(f"{suite} has {apt.newest(wanted.package, '') or 'none'}")
    raise Missing(f"{distribution.name} has no {wanted.name} now ({', '.join(seen)}).\n{wanted.instead}")


class PrivateApt:
    """apt with lists, indexes and caches of its own below ``folder``."""

    def __init__(self, folder: Path, distribution: Distribution, archive: Archive, *, sources: bool) -> None:
        self.folder = folder
        self.distribution = distribution
        self.archive = archive
        self.kind = "deb-src" if sources else "deb"
        self.log = folder / "apt.log"

    def update(self, suite: str) -> None:
        """Fetch the index of one suite. Raises Trouble."""
        for part in ("lists/partial", "cache/archives/partial", "parts", "preferences"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        self.log.write_bytes(b"")
        signed_by = f"Signed-By: {self.archive.signed_by}\n" if self.archive.signed_by else ""
        (self.folder / "list.sources").write_text(
            f"Types: {self.kind}\nURIs: {self.archive.uris[0]}\nSuites: {suite}\n"
            f"Components: {' '.join(self.distribution.components)}\n{signed_by}"
        )
        say(f"reading the package index of {self.distribution.name} {suite}")
        self._run("apt-get", "update", "-qq")

    def newest(self, package: str, prefix: str) -> str | None:
        """Return the highest version that starts with ``prefix`` (behind the epoch), None if there is none."""
        show = "showsrc" if self.kind == "deb-src" else "show"
        output = subprocess.run(
            ["apt-cache", *self._options(), show, package], capture_output=True, text=True, check=False
        ).stdout
        return newest(re.findall(r"^Version: (\S+)$", output, re.MULTILINE), prefix)

    def fetch(self, package: str, version: str, into: Path) -> Path:
        """Download a package; return its .dsc or .deb. Raises Trouble."""
        if self.kind == "deb-src":
            self._run("apt-get", "source", "-qq", "--download-only", f"{package}={version}", cwd=into)
            return next(into.glob(f"{package}_*.dsc"))
        self._run("apt-get", "download", "-qq", f"{package}={version}", cwd=into)
        return next(into.glob(f"{package}_*.deb"))

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::SourceList": self.folder / "list.sources",
            "Dir::Etc::SourceParts": self.folder / "parts",
            "Dir::Etc::Preferences": self.folder / "preferences" / "none",
            "Dir::Etc::PreferencesParts": self.folder / "preferences",
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::Status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "APT::Architecture": _architecture(),
            "APT::Architectures": _architecture(),
            # apt's own user cannot write to a home folder.
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> None:
        start = self.log.stat().st_size
        with self.log.open("ab") as log:
            try:
                done = subprocess.run(
                    [program, *self._options(), *arguments],
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    check=False,
                )
            except FileNotFoundError:
                raise Missing(f"{program} is not there: this needs apt") from None
        if done.returncode:
            raise Trouble(f"{program} {arguments[0]} failed:\n{last_lines(self.log, start)}")


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def newest(versions: Iterable[str], prefix: str) -> str | None:
    """Return the highest version that starts with ``prefix`` (behind the epoch), None if there is none."""
    best: str | None = None
    for version in versions:
        if version.rpartition(":")[2].startswith(prefix) and (best is None or _is_newer(version, best)):
            best = version
    return best


def _is_newer(version: str, than: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", version, "gt", than], check=False).returncode == 0
