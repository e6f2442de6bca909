"""Following a path against the kernel itself: whatever is on the way, both come to the same file."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin.kvm.supervisor.places import Place, caller, quick_look, walk

NAMES = ["a", "b", "c", "one", "two", "file", "none"]
LINKS = ["one", "two", "a/one", "a/b/two", "c"]
PARTS = st.sampled_from([*NAMES, "..", ".", "", "a/b", "../.."])
HEADS = st.sampled_from(
    [
        "", "", "", "/", "{top}/", "{top}/", "/proc/self/cwd/", "/proc/thread-self/root{top}/", "/proc/self/fd/{fd}/",
        "/dev/fd/{fd}/", "/proc/self/fd/{file}", "/dev/fd/{file}", "/proc/{pid}/cwd/", "/proc/self/task/{tid}/fd/{fd}/",
        "/proc/mounts", "/proc/self/", "/proc/self/../self/cwd/", "/dev/null", "/dev/",
    ]
)  # fmt: skip
PATHS = st.builds(lambda head, parts: head + "/".join(parts), HEADS, st.lists(PARTS, max_size=5))


@contextmanager
def tree(top: Path, links: dict[str, str]) -> Iterator[dict[str, object]]:
    """A folder with files and links, in which we stand; and what paths may name."""
    before = Path.cwd()
    shutil.rmtree(top, ignore_errors=True)
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").touch()
    (top / "file").touch()
    folder, file = os.open(top / "a", os.O_PATH), os.open(top / "a" / "file", os.O_RDONLY)
    os.chdir(top)
    names = {"top": top, "fd": folder, "file": file, "pid": os.getpid(), "tid": threading.get_native_id()}
    try:
        for link, target in links.items():
            (top / link).symlink_to(target.format(**names) or ".")
        yield names
    finally:
        os.chdir(before)
        os.close(folder)
        os.close(file)


def outcome(place: Place) -> tuple[int, int] | None:
    return place.status and (place.status.st_dev, place.status.st_ino)


def by_kernel(path: str) -> tuple[int, int] | str | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path is not spelled as it was given
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error.errno)
    return status.st_dev, status.st_ino


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places") / "top"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=st.dictionaries(st.sampled_from(LINKS), PATHS, max_size=4), path=PATHS)
def test_a_path_leads_where_the_kernel_says(top: Path, links: dict[str, str], path: str) -> None:
    with tree(top, links) as names:
        named = path.format(**names)
        expected = by_kernel(named)
        root, cwd = caller(os.getpid(), b"root"), caller(os.getpid(), b"cwd")
        try:
            absolute = named.startswith("/")
            start = root if absolute else cwd
            try:
                walked = outcome(walk(threading.get_native_id(), root, start, named.encode()))
            except FileNotFoundError:
                walked = None
            except OSError as error:
                assert str(error.errno) == expected
                return
            if named and not named.endswith(("/", "/.", "/..")):  # there, a file may pass for the folder it is not
                assert walked == expected
            quick = quick_look(start, named.encode(), from_root=absolute) if named else None
            if quick is not None:
                assert outcome(quick) == expected
        finally:
            os.close(root)
            os.close(cwd)
