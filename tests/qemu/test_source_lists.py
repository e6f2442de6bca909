"""Which archive is the distribution's own is read from the machine's source lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.qemu.distribution import (
    DISTRIBUTIONS,
    Archive,
    Wanted,
    configured_archives,
    newest,
    os_release,
    own_archive,
    parse_deb822,
    parse_one_line,
    this_distribution,
)
from plugin.qemu.trouble import Missing

BOOKWORM = {"ID": "debian", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian 12"}
NOBLE = {"ID": "ubuntu", "VERSION_CODENAME": "noble", "PRETTY_NAME": "Ubuntu 24.04.1 LTS"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QEMU = Wanted("qemu", "10.2.", True, "source package of QEMU", "Give --tarball.")


def test_a_stanza_of_a_deb822_file_becomes_an_archive() -> None:
    text = f"""\
# a comment
Types: deb deb-src
# another: one
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}
"""
    assert parse_deb822(text) == [
        Archive(
            types=("deb", "deb-src"),
            uris=("http://mirror.invalid/debian",),
            suites=("bookworm", "bookworm-updates"),
            components=("main", "contrib"),
            signed_by=KEYRING,
        )
    ]


def test_stanzas_are_told_apart_and_disabled_ones_left_out() -> None:
    text = """\
Types: deb
URIs: http://a.invalid/debian
Suites: one

Enabled: no
Types: deb
URIs: http://b.invalid/debian
Suites: two
\t
Types: deb
URIs: http://c.invalid/debian
Suites: three
"""
    assert [archive.suites for archive in parse_deb822(text)] == [("one",), ("three",)]


def test_a_key_inside_the_file_is_kept_with_its_lines() -> None:
    text = """\
Types: deb
URIs: http://a.invalid/debian
Suites: one
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
Components: main
"""
    [archive] = parse_deb822(text)
    assert archive.signed_by.splitlines()[1:] == [
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
        " .",
        " abc",
        " -----END PGP PUBLIC KEY BLOCK-----",
    ]
    assert archive.components == ("main",)


def test_one_line_entries_with_and_without_options() -> None:
    text = f"""\
deb http://a.invalid/debian bookworm main contrib  # why
#deb http://off.invalid/debian bookworm main
deb-src [arch=amd64 signed-by={KEYRING}] http://b.invalid/debian bookworm main
not an entry
"""
    assert parse_one_line(text) == [
        Archive(("deb",), ("http://a.invalid/debian",), ("bookworm",), ("main", "contrib"), ""),
        Archive(("deb-src",), ("http://b.invalid/debian",), ("bookworm",), ("main",), KEYRING),
    ]


def test_all_lists_of_a_machine_are_read_and_others_ignored(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.invalid/debian bookworm main\n")
    (parts / "b.list").write_text("deb http://b.invalid/debian bookworm main\n")
    (parts / "c.sources").write_text("Types: deb\nURIs: http://c.invalid/debian\nSuites: bookworm\n")
    (parts / "d.list.save").write_text("deb http://d.invalid/debian bookworm main\n")
    assert [archive.uris[0] for archive in configured_archives(tmp_path)] == [
        "http://a.invalid/debian",
        "http://b.invalid/debian",
        "http://c.invalid/debian",
    ]


def archive(uri: str, *suites: str, signed_by: str = "") -> Archive:
    return Archive(("deb",), (uri,), suites, ("main",), signed_by)


@pytest.mark.parametrize(
    "own",
    [
        archive("http://mirror.invalid/debian/", "bookworm"),
        archive("http://cache.invalid/anything", "bookworm", "bookworm-updates", signed_by=KEYRING),
        archive("http://mirror.invalid/debian", "stable"),
        archive("mirror+file:///etc/apt/mirrors/debian.list", "bookworm", "bookworm-updates"),
    ],
)
def test_debians_archive_is_picked_among_others(own: Archive) -> None:
    others = [
        archive("http://vendor.invalid/apt", "bookworm"),
        archive("http://mirror.invalid/debian-security", "bookworm-security", signed_by=KEYRING),
        archive("mirror+file:///etc/apt/mirrors/debian-security.list", "bookworm-security"),
    ]
    assert own_archive(DISTRIBUTIONS["debian"], [*others, own], BOOKWORM, QEMU) == own


UBUNTU_SOURCES = """\
# written by the installer
Types: deb
URIs: {uri}
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

## security
Types: deb
URIs: http://security.invalid/ubuntu/
Suites: noble-security
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""
UBUNTU_LIST = """\
deb http://vendor.invalid/apt noble main
deb http://security.invalid/ubuntu noble-security main restricted
deb {uri} noble main restricted
deb {uri} noble universe
"""


@pytest.mark.parametrize(
    ("place", "text", "uri"),
    [
        ("sources.list.d/ubuntu.sources", UBUNTU_SOURCES, "http://mirror.invalid/ubuntu/"),
        ("sources.list.d/ubuntu.sources", UBUNTU_SOURCES, "mirror+file:/etc/apt/mirrors.txt"),
        ("sources.list", UBUNTU_LIST, "http://mirror.invalid/pub/ubuntu"),
    ],
)
def test_ubuntus_archive_is_read_from_either_style(tmp_path: Path, place: str, text: str, uri: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.format(uri=uri))
    found = own_archive(DISTRIBUTIONS["ubuntu"], configured_archives(tmp_path), NOBLE, QEMU)
    assert found.uris == (uri,)
    assert "noble" in found.suites


def test_a_system_is_known_by_its_os_release(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n')
    assert os_release(path).items() >= NOBLE.items()
    assert this_distribution(os_release(path), QEMU).name == "Ubuntu"


@pytest.mark.parametrize("release", [{"ID": "fedora", "PRETTY_NAME": "Fedora Linux 42"}, {}])
def test_on_other_systems_the_message_says_what_to_do_instead(release: dict[str, str]) -> None:
    with pytest.raises(Missing) as failure:
        this_distribution(release, QEMU)
    assert "source package of QEMU" in str(failure.value)
    assert "Debian or Ubuntu" in str(failure.value)
    assert release.get("PRETTY_NAME", "another system") in str(failure.value)
    assert "Give --tarball." in str(failure.value)


@pytest.mark.parametrize(("name", "release"), [("debian", BOOKWORM), ("ubuntu", NOBLE)])
def test_a_machine_without_its_archive_is_told_where_it_was_looked_for(name: str, release: dict[str, str]) -> None:
    vendor = archive("http://vendor.invalid/apt", release["VERSION_CODENAME"])
    with pytest.raises(Missing, match=r"sources\.list(.|\n)*Give --tarball"):
        own_archive(DISTRIBUTIONS[name], [vendor], release, QEMU)


def test_the_newest_version_of_the_release_is_taken() -> None:
    versions = ["1:10.2.0+ds-1", "1:10.2.10+ds-1ubuntu1", "1:10.2.9+ds-1", "1:10.20.0+ds-1", "1:11.0.0+ds-1"]
    assert newest(versions, "10.2.") == "1:10.2.10+ds-1ubuntu1"
    assert newest(versions, "") == "1:11.0.0+ds-1"
    assert newest(versions, "9.") is None
