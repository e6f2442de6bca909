"""A processor's record from a file: the project's own platforms, and any that a user names."""

from __future__ import annotations

from plugin.cpuid import Leaf, Registers
from plugin.tdx_module.errors import BadPlatform
from plugin.tdx_module.platform import Platform
from plugin.typing import Any


def platform_from_file(path: str) -> Platform:
    """Read a platform that a user has in the format of ``data/platforms``; it is named by its path (in UTF-8).

    Raises BadPlatform with what is wrong, and where.
    """
    from plugin import document, strict_json  # noqa: PLC0415 - the project's own are read without, and start-up counts

    name = document.name(path)
    try:
        return platform_from_data(name, strict_json.from_json(document.read(path)))
    except document.Unreadable as error:
        raise BadPlatform(name, f"cannot be read: {error}") from error
    except strict_json.NotJson as error:
        raise BadPlatform(name, f"is not JSON: {error}") from error


def platform_from_data(name: str, data: Any) -> Platform:
    """Make a platform of decoded JSON. Raises BadPlatform."""
    if not isinstance(data, dict) or not isinstance(data.get("cpuid"), dict):
        raise BadPlatform(name, 'has no "cpuid" object with leaves in it')
    native = {_leaf(name, leaf): _registers(name, leaf, words) for leaf, words in data["cpuid"].items()}
    for needed in (Leaf(0), Leaf(0x80000000)):
        if needed not in native:
            raise BadPlatform(name, f"lacks leaf {needed}, which says how many leaves there are")
    notes = data.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise BadPlatform(name, '"notes" is not a list of texts')
    tsx_ctrl = data.get("tsx_ctrl", False)
    if not isinstance(tsx_ctrl, bool):
        raise BadPlatform(name, '"tsx_ctrl" is neither true nor false')
    return Platform(name, str(data.get("description", "")), native, tsx_ctrl=tsx_ctrl, notes=tuple(notes))


def _leaf(name: str, text: str) -> Leaf:
    try:
        return Leaf.parse(text)
    except ValueError as error:
        raise BadPlatform(name, f'"{text}" is not a leaf; one is like "0x7.0"') from error


def _registers(name: str, leaf: str, words: Any) -> Registers:
    try:
        return hexadecimal(words)
    except ValueError as error:
        raise BadPlatform(name, f"leaf {leaf} {error}") from error


def hexadecimal(words: Any) -> Registers:
    """Read "eax ebx ecx edx", 32 bits each. Raises ValueError that says what there is instead."""
    values = words.split() if isinstance(words, str) else []
    try:
        numbers = [int(word, 16) for word in values]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(0 <= number < 1 << 32 for number in numbers):
        said = f"{words!a}"
        raise ValueError(f'is {said if len(said) < 100 else said[:97] + "..."}, not "eax ebx ecx edx" in hexadecimal')
    return Registers._make(numbers)
