"""What a client makes of messages, in whatever order and however often they come."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from qmp_client.errors import UsageError
from qmp_client.lab import topics, wanted
from qmp_client.lab.board import LATEST, Board
from qmp_client.lab.board_table import table
from qmp_client.lab.hearing import Heard, read
from qmp_client.lab.ledger import Ledger
from qmp_client.lab.printable import printable
from qmp_client.lab.wire import (
    Change,
    Drift,
    Job,
    Message,
    Outcome,
    Progress,
    Rejection,
    Result,
    State,
    Status,
    Versions,
    encode,
)

LAB = "bay"
VERSIONS = Versions(module="1.5.01", microcode="", kernel="", qemu="", firmware="", platform="")


def progress(job: str, state: State = State.ACCEPTED) -> Progress:
    return Progress(job=job, host="alpha", pool="emr", cpu="host", state=state)


def result(job: str, reason: str = "") -> Result:
    return Result(
        job=job, host="alpha", pool="emr", outcome=Outcome.FAILED, seconds=1, at=0, reason=reason, kvm="simulated"
    )


def rejection(job: str) -> Rejection:
    return Rejection(host="beta", job=job, digest="", reason="full")


def test_a_ledger_is_open_until_everything_is_answered() -> None:
    ledger = Ledger([Job(id="a"), Job(id="b"), Job(id="c")])
    assert (ledger.open, [job.id for job in ledger.unheard]) == (["a", "b", "c"], ["a", "b", "c"])
    assert ledger.take(progress("a"))
    assert not ledger.take(progress("a")), "it is no news"
    assert [job.id for job in ledger.unheard] == ["b", "c"], "what a host has is not sent again"
    assert ledger.take(result("a"))
    assert ledger.take(rejection("b"))
    assert ledger.open == ["c"]
    assert not ledger.take(result("elsewhere"))
    assert ledger.take(result("c", "first"))
    assert not ledger.take(result("c", "second"))
    assert (ledger.open, ledger.results["c"].reason) == ([], "first")


@given(st.permutations([progress("a"), rejection("a"), result("a"), result("a")]))
def test_a_result_is_worth_more_than_a_rejection(messages: list[Message]) -> None:
    """A job that was sent twice may be rejected by one host and done by another."""
    ledger = Ledger([Job(id="a")])
    for message in messages:
        ledger.take(message)
    assert (list(ledger.results), ledger.rejections) == (["a"], {})


def test_a_grid_becomes_jobs() -> None:
    jobs = wanted.jobs({"cpu": ("host", "host,-avx"), "smp": ("2",), "machine": ()}, "minimal", "grid")
    assert jobs == [
        Job(id="grid-1", cpu="host", vcpus=2, choose="minimal"),
        Job(id="grid-2", cpu="host,-avx", vcpus=2, choose="minimal"),
    ]
    assert wanted.jobs({}, "model", "one") == [Job(id="one")]
    with pytest.raises(UsageError, match="a job has no kvm"):
        wanted.jobs({"kvm": ("upstream",)}, "model", "one")


@pytest.mark.parametrize("message", [progress("a"), result("a"), rejection("a")])
def test_what_is_sent_can_be_read(message: Message) -> None:
    assert read(encode(message)) == message


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_or_passed_over(payload: bytes) -> None:
    assert read(payload) is None or isinstance(read(payload), Message)


def test_the_board_keeps_the_latest() -> None:
    board = Board()
    for number in range(LATEST + 3):
        assert board.take(Heard(topics.progress(LAB, f"job-{number}"), progress(f"job-{number}")))
    board.take(Heard(topics.progress(LAB, "job-5"), progress("job-5", State.DONE)))
    assert len(board.jobs) == LATEST
    assert list(board.jobs)[-1] == "job-5"


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        (topics.status(LAB, "alpha"), Status(host="beta", pool="emr", state="online")),
        (topics.progress(LAB, "b"), progress("a")),
        (topics.rejected(LAB, "alpha"), rejection("a")),
        (topics.status(LAB, "alpha"), result("a")),
    ],
)
def test_nobody_speaks_for_somebody_else(topic: str, message: Message) -> None:
    assert not Board().take(Heard(topic, message))


def test_many_hosts_leave_room_for_what_happens() -> None:
    board = Board()
    for number in range(40):
        state = "offline" if number == 33 else "online"
        name = f"host-{number:02}"
        board.take(Heard(topics.status(LAB, name), Status(host=name, pool="emr", state=state)))  # type: ignore[arg-type]
    board.take(Heard(topics.progress(LAB, "one"), progress("one")))
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(table(board, plain=False, height=24))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 24
    assert [line.split()[0] for line in lines if "host-" in line] == [f"host-{n:02}" for n in (*range(7), 33)]
    assert "and 32 more: 32 online" in lines
    assert any(line.split()[:1] == ["one"] for line in lines)


@given(st.text(max_size=30))
def test_nothing_that_is_heard_reaches_the_terminal_as_a_command(text: str) -> None:
    board = Board()
    board.take(Heard(topics.status(LAB, text), Status(host=text, pool=text, state="online")))
    board.take(Heard(topics.progress(LAB, text), progress(text)))
    board.take(Heard(topics.rejected(LAB, "beta"), Rejection(host="beta", job=text, digest="", reason=text)))
    change = Change(field="0x7.0.ebx[16]", name=text, before=0, now=1)
    drift = Drift(
        host=text, pool=text, cpu=text, kvm="simulated", job="a", at=0, likely=text, moved=(), before=VERSIONS,
        now=VERSIONS, changes=(change,) * 5,
    )  # fmt: skip
    board.take(Heard(topics.drift(LAB), drift))
    out = io.StringIO()
    Console(file=out, width=400, color_system=None).print(table(board, plain=True))
    assert all(character.isprintable() or character == "\n" for character in out.getvalue())
    assert printable(text).isprintable()


@given(st.text(max_size=30), st.booleans())
def test_what_is_read_has_nothing_that_moves_a_terminal(text: str, ascii_only: bool) -> None:
    payload = json.dumps(msgspec.to_builtins(result("a", reason=text)), ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    )
    said = read(payload)
    if said is None:  # half a surrogate pair is no text
        assert not text.isprintable()
        return
    assert isinstance(said, Result)
    assert len(said.reason) == len(text)
    assert all(character.isprintable() or character in "\n\t" for character in said.reason)
    assert all(got == sent for got, sent in zip(said.reason, text, strict=True) if sent.isprintable())
