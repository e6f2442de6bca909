"""Every file that a user names: whatever it is, a sentence that names it, and exit status 2."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin import document, strict_json
from plugin.tdx_module import catalog
from qmp_client.cli.program import run
from qmp_client.errors import UsageError
from qmp_client.lab import config
from qmp_client.matrix import journal

Reader = Callable[[Path], int]


def refused(read: Callable[[Path], object]) -> Reader:
    """A reader without a command line of its own, as a command that ends with the error's exit status."""

    def status(path: Path) -> int:
        try:
            read(path)
        except UsageError as error:
            print(f"tdx-cpuid: {error}")
            return error.exit_code
        return 0

    return status


READERS: dict[str, Reader] = {
    "choice": lambda path: run(["predict", "--choose", str(path)]),
    "platform": lambda path: run(["predict", "--platform", str(path)]),
    "module": lambda path: run(["explain", "avx512f", "--module", str(path)]),
    "module of a contract": lambda path: run(["contract", "1.5.05", str(path)]),
    "expected report": lambda path: run(["negotiate", "--qemu", "/nonexistent", "--expect", str(path)]),
    "conversation": lambda path: run(["replay", str(path)]),
    "simulated platform": lambda path: run(["negotiate", "--qemu", "/nonexistent", "--platform", str(path)]),
}
TABLES: dict[str, Reader] = {
    "grid": lambda path: run(["matrix", "--qemu", "/nonexistent", "--file", str(path)]),
    "agent": refused(config.load),
}
LINES: dict[str, Reader] = {
    "results": refused(journal.read),
    "baseline": lambda path: run(["baseline", "check", path.stem, "--folder", str(path.parent)]),
}
DOCUMENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", ""),
    "binary": (bytes(range(256)), ""),
    "UTF-16": ('{"cpuid":[]}'.encode("utf-16"), "UTF-16"),
    "Latin-1": ('{"cpuid":"\xe9"}'.encode("latin-1"), "not text in UTF-8"),
    "with a BOM": (b"\xef\xbb\xbf{}", "BOM"),
    "nested lists": (b"[" * 100_000, "nested deeper"),
    "nested, and whole": (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper"),
    "NaN": (b'{"cpuid":[],"xfam":NaN}', "NaN"),
    "infinite": (b'{"cpuid":[],"xfam":1e999}', "infinite"),
    "a key twice": (b'{"cpuid":{},"cpuid":{}}', "'cpuid' twice"),
    "6,000 digits": (b'{"cpuid":[],"xfam":' + b"9" * 6000 + b"}", "64 bits"),
    "65 bits": (b'{"cpuid":[],"xfam":18446744073709551616}', "64 bits"),
    "half a character": (b'{"cpuid":[],"\\ud800":1}', "surrogate"),
    "cut": (b'{"cpuid":', ""),
}
OTHER_TABLES: dict[str, tuple[bytes, str]] = {
    "binary": (bytes(range(256)), ""),
    "UTF-16": ('cpu="host"'.encode("utf-16"), "UTF-16"),
    "nested lists": (b"cpu=" + b"[" * 100_000, "nested"),
    "nested tables": (b"cpu" + b".a" * 5000 + b"=1", "nested"),
    "NaN": (b"cpu=nan", "infinite, or none"),
    "infinite": (b"cpu=inf", "infinite"),
    "a key twice": (b'cpu="a"\ncpu="b"', "overwrite"),
    "6,000 digits": (b"cpu=" + b"9" * 6000, "thousands of digits"),
    "6,000 hexadecimal digits": (b"cpu=0x" + b"9" * 6000, "64 bits"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_json_that_is_none(reader: str, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, said = DOCUMENTS[kind]
    path = tmp_path / "given.json"
    path.write_bytes(content)
    assert READERS[reader](path) == 2
    error = capfd.readouterr().err
    assert str(path) in error and said in error


@pytest.mark.parametrize("reader", TABLES)
@pytest.mark.parametrize("kind", OTHER_TABLES)
def test_toml_that_is_none(reader: str, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, said = OTHER_TABLES[kind]
    path = tmp_path / "given.toml"
    path.write_bytes(content)
    assert TABLES[reader](path) == 2
    error = "".join(capfd.readouterr())
    assert str(path) in error and said in error


@pytest.mark.parametrize(
    "content", [b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"9" * 6000 + b"\n", b'{"cell":1}\n', b"\0\n"]
)
@pytest.mark.parametrize("reader", LINES)
def test_lines_that_are_none(reader: str, content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "given.txt"
    path.write_bytes(content)
    assert LINES[reader](path) == 2
    assert str(path) in "".join(capfd.readouterr())


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def large(path: Path) -> None:
    path.touch()
    os.truncate(path, document.LIMIT * 4 + 1)  # a hole; no disk is used


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (folder, "it is a folder"),
    "device": (device, "it is no regular file"),
    "pipe": (os.mkfifo, "it is a pipe that nobody writes into"),
    "nothing": (lambda path: None, "No such file or directory"),
    "large": (large, "it has more than 64 MiB"),
}


@pytest.mark.parametrize("reader", READERS | TABLES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file(reader: str, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "given.json"
    make, said = KINDS[kind]
    make(path)
    if (reader, kind) == ("choice", "nothing"):
        assert run(["predict", "--choose", str(path)]) == 2
        assert f"{path}: neither a policy nor a file" in capfd.readouterr().err
        return
    assert (READERS | TABLES)[reader](path) == 2
    assert f"{path} cannot be read: {said}" in "".join(capfd.readouterr()).replace("256", "64")


def test_a_pipe_that_somebody_writes_into(tmp_path: Path) -> None:
    """As `<(command)` of a shell; the writer may be slow."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)

    def write() -> None:
        for part in (b'{"a"', b": 1}"):
            os.write(writer, part)
        os.close(writer)

    thread = threading.Timer(0.1, write)
    thread.start()
    assert document.read(path) == b'{"a": 1}'
    thread.join()
    os.close(reader)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.text()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
        max_leaves=20,
    )
)
@settings(max_examples=50)
def test_what_is_json_is_read_as_it_is(value: object) -> None:
    import json  # noqa: PLC0415

    for ascii_only in (True, False):
        assert strict_json.from_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


PROFILE = {
    "like": "2.0.18",
    "version": "",
    "configurable": {
        "0x1": "0fff3fff 00ff0000 31044d88 b8440000",
        "0x1f.0": "1f ffff ffff 0", "0x1f.1": "1f ffff ffff 0", "0x1f.2": "1f ffff ffff 0",
        "0x1f.3": "1f ffff ffff 0", "0x1f.4": "1f ffff ffff 0", "0x1f.5": "1f ffff ffff 0",
    },
}  # fmt: skip


def profile(tmp_path: Path, **other: object) -> Path:
    import json  # noqa: PLC0415

    path = tmp_path / "host.json"
    path.write_text(json.dumps({"tdx-module": PROFILE | other}))
    return path


def without(leaf: str) -> dict[str, str]:
    return {key: words for key, words in PROFILE["configurable"].items() if key != leaf}  # type: ignore[attr-defined]


ODD: dict[str, tuple[object, str]] = {
    "a gap in the topology": (without("0x1f.4"), "malformed topology"),
    "a leaf that is none": ({"seven": "0 0 0 0"}, '"seven" is not a leaf'),
    "a leaf twice": ({"0x7.0": "0 0 0 0", "0x07.0": "0 0 0 0"}, "the leaf 0x7.0 twice"),
    "33 bits": ({"0x7.0": "0 100000000 0 0"}, "in hexadecimal"),
    "a minus": ({"0x7.0": "0 -1 0 0"}, "in hexadecimal"),
    "three registers": ({"0x7.0": "0 0 0"}, "in hexadecimal"),
    "no text": ({"0x7.0": 7}, "leaf 0x7.0 is 7"),
    "no leaves": ([], '"configurable"'),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_captured_module(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configurable, said = ODD[kind]
    path = profile(tmp_path, configurable=configurable)
    for words in (["explain", "avx512f", "--module", str(path)], ["contract", "1.5.05", str(path)]):
        assert run(words) == 2
        assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [("like", "host.json"), ("like", []), ("like", "0.9"), ("version", {"a": 1}), ("configurable", None)],
)
def test_a_captured_module_whose_words_are_none(
    field: str, value: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if value == "host.json":
        value = str(tmp_path / "host.json")  # like itself
    assert run(["explain", "avx512f", "--module", str(profile(tmp_path, **{field: value}))]) == 2
    assert "tdx-cpuid: " in capfd.readouterr().err


def test_a_kernel_that_lets_nobody_choose_the_model(tmp_path: Path) -> None:
    path = str(profile(tmp_path, configurable=without("0x1")))
    assert run(["explain", "avx512f", "--module", path]) == 0
    assert run(["contract", "2.0.18", path]) in (0, 1)


@pytest.mark.parametrize(
    "damage",
    [b"", b"[1]", b"{}", b"\xff", b"[" * 10_000, b'{"base": "1.5.05"}', b'{"base": 7}', b'{"rows": [], "dynamic": 1}'],
)
@pytest.mark.parametrize(
    "words", [["predict"], ["explain", "avx512f", "--module", "1.5.05"], ["contract", "1.0", "1.5.05"]]
)
def test_a_damaged_module_of_the_project(
    words: list[str], damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in (Path(catalog._MODULES)).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1.5.05.json").write_bytes(damage)
    monkeypatch.setattr(catalog, "_MODULES", str(tmp_path))
    catalog.load_module.cache_clear()
    try:
        assert run(words) == 2
    finally:
        catalog.load_module.cache_clear()
    said = capfd.readouterr().err
    assert f"{tmp_path}/1.5.05.json is damaged" in said and "install tdx-cpuid again" in said
