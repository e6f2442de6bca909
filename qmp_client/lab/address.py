"""Where a lab's broker is, and who we are to it: read from what a user wrote, before anything connects."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiomqtt

from qmp_client.errors import MissingError, UsageError
from qmp_client.lab.names import check_name


class Address(NamedTuple):
    """Where the broker is, and who we are to it."""

    host: str
    port: int
    tls: aiomqtt.TLSParameters | None = None
    user: str | None = None
    password: str | None = None


class At(NamedTuple):
    """A lab as a user names it: the options that every command has which talks to the broker."""

    broker: str
    lab: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    password_file: Path | None = None
    insecure: bool = False

    def address(self) -> Address:
        """Where to connect to. Raises what ``address`` raises, and UsageError for a lab that no topic can have."""
        found = address(self.broker, self.ca, self.certificate, self.key, self.password_file, insecure=self.insecure)
        check_name("--lab", self.lab)
        return found


def address(
    url: str,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    password_file: Path | None = None,
    *,
    insecure: bool = False,
) -> Address:
    """Read ``mqtt[s]://[user@]host[:port]``; ``insecure``: a password may go over the network as it is.

    Raises UsageError, and MissingError for files that cannot be read.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--broker {url}: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(f"--broker {url}: not a broker", hint="it looks like mqtts://broker.example:8883")
    if parts.password:
        raise UsageError("a password in --broker is seen by everybody on this machine", hint="use --password-file")
    for file in (ca, certificate, key, password_file):
        if file is not None and not file.is_file():
            raise MissingError(f"there is no file {file}")
    if parts.scheme == "mqtt" and (ca or certificate or key):
        raise UsageError("--ca, --certificate and --key are for mqtts://; with mqtt:// nothing is encrypted")
    if password_file and not parts.username:
        raise UsageError(f"--password-file: whose password? --broker {parts.scheme}://USER@... says it")
    if password_file and parts.scheme == "mqtt" and not insecure and not _is_this_machine(parts.hostname):
        raise UsageError(
            f"--password-file with mqtt://: everybody between here and {parts.hostname} could read the password",
            hint="use mqtts://, or --insecure on a network that nobody else is on",
        )
    try:
        password = password_file.read_text().strip() if password_file else None
    except OSError as error:
        raise MissingError(f"{password_file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--password-file: {password_file} is no text in UTF-8") from error
    tls = None
    if parts.scheme == "mqtts":
        _check_certificates(ca, certificate, key)
        tls = aiomqtt.TLSParameters(
            ca_certs=str(ca) if ca else None,
            certfile=str(certificate) if certificate else None,
            keyfile=str(key) if key else None,
        )
    return Address(parts.hostname, port or (8883 if tls else 1883), tls, parts.username, password)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_certificates(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Raise UsageError for what OpenSSL would not take, which it says in words of its own on every connection."""
    if key and not certificate:
        raise UsageError("--key goes with --certificate")
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise UsageError(f"--ca: {ca} has no certificates in PEM") from error
    except OSError as error:
        raise MissingError(f"{ca} cannot be read: {error.strerror}") from error
    if not certificate:
        return

    def no_passphrase() -> str:
        raise UsageError(f"--key: {key or certificate} has a passphrase, which nobody could type for an agent")

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        what = f"--certificate {certificate}" + (f" and --key {key}" if key else ", and no --key,")
        raise UsageError(f"{what} are no certificate in PEM with its private key ({error.reason})") from error
    except OSError as error:
        raise MissingError(f"{certificate} or {key} cannot be read: {error.strerror}") from error
