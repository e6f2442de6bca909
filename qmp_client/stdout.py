"""Documents on standard output: bytes as they are, whatever the terminal's encoding is."""

from __future__ import annotations

import sys

import msgspec


def put(document: bytes) -> None:
    """Print a document, which ends its own last line."""
    sys.stdout.flush()
    sys.stdout.buffer.write(document)
    sys.stdout.buffer.flush()


def put_json(value: object) -> None:
    """Print a value as indented JSON."""
    put(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
