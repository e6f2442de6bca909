"""CPUID instructions of the program itself answer for the simulated processor."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from plugin.kvm.supervisor.cpuid_sites import _store, cache_directory, cpuid_sites_of, find_cpuid_sites
from plugin.kvm.supervisor.elf import Elf, NotElf
from tests.kvm.supervisor.conftest import Start
from tests.waiting import PATIENCE, gone, state, until

Compile = Callable[..., Path]

CPUID = """
#include <cpuid.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static int right(unsigned leaf, unsigned sub) {
    unsigned long a = leaf | 0xffffffff00000000ul, b = ~0ul, c = sub | 0xffffffff00000000ul, d = ~0ul;
    __asm__ volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
    return a == (leaf ^ 0x80000001) && b == 0x41424344 && c == sub + 1u && d == 0xdeadbeef;
}
static void open_kvm(void) { if (open("/dev/kvm", O_RDWR) < 0) exit(9); }
"""
ONCE = CPUID + "int main(void) { open_kvm(); return right(0, 0) && right(7, 1) ? 0 : 1; }"


@pytest.mark.parametrize("options", [["-static-pie"], ["-pie", "-fPIE"], ["-no-pie"], ["-static"], ["-pie", "-s"]])
def test_any_kind_of_executable(start: Start, compile_c: Compile, options: list[str]) -> None:
    status, out, end = start(compile_c(ONCE, *options)).end()
    assert (status, out, end["warnings"]) == (0, "", [])
    assert end["cpuid"]["active"]
    assert end["cpuid"]["answered"] == 2


def test_before_dev_kvm_is_opened_and_with_native_cpuid_the_processor_answers(start: Start, compile_c: Compile) -> None:
    program = compile_c(
        CPUID + "int main(void) { int first = right(0, 0); open_kvm(); return first + 2 * right(0, 0); }"
    )
    assert start(program).end()[0] == 2
    status, _, end = start(program, native=True).end()
    assert (status, end["cpuid"]["active"]) == (0, False)


def test_threads_that_exist_and_threads_to_come(start: Start, compile_c: Compile) -> None:
    program = compile_c(
        CPUID
        + """
static pthread_barrier_t opened;
static void *work(void *early) {
    if (early) pthread_barrier_wait(&opened);
    for (int i = 0; i < 20; i++) if (!right(i, 0)) exit(1);
    return 0;
}
int main(void) {
    pthread_t threads[16];
    pthread_barrier_init(&opened, 0, 9);
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], 0, work, "early");
    open_kvm();
    pthread_barrier_wait(&opened);
    for (int i = 8; i < 16; i++) pthread_create(&threads[i], 0, work, 0);
    for (int i = 0; i < 16; i++) pthread_join(threads[i], 0);
    return 0;
}"""
    )
    status, out, end = start(program).end()
    assert (status, out, end["cpuid"]["answered"]) == (0, "", 320)


def test_forks_have_it_and_other_programs_get_their_own(start: Start, compile_c: Compile) -> None:
    program = compile_c(
        CPUID
        + """
int main(int argc, char **argv) {
    if (argc > 1) { int early = right(0, 0); open_kvm(); return early || !right(0, 0); }
    open_kvm();
    for (int i = 0; i < 2; i++) {
        int status;
        if (fork() == 0) {
            if (i == 0) { open_kvm(); _exit(!right(0, 0)); }
            execl(argv[0], argv[0], "again", (char *)0);
        }
        wait(&status);
        if (status) return 1;
    }
    return 0;
}"""
    )
    status, out, end = start(program).end()
    assert (status, out, end["warnings"], end["cpuid"]["answered"]) == (0, "", [], 2)


def test_signals_arrive_as_without_us(start: Start, compile_c: Compile) -> None:
    """Handlers run, a handler may itself use CPUID, and a SIGTRAP that is not ours is the program's."""
    program = compile_c(
        CPUID
        + """
static volatile int alarms, traps;
static void on_alarm(int n) { if (!right(n, 0)) _exit(3); alarms++; }
static void on_trap(int n) { traps++; }
int main(void) {
    open_kvm();
    signal(SIGALRM, on_alarm);
    signal(SIGTRAP, on_trap);
    for (int i = 0; i < 20; i++) { raise(SIGALRM); if (!right(i, 0)) return 1; }
    __asm__ volatile("int3");
    raise(SIGTRAP);
    return alarms == 20 && traps == 2 ? 0 : 2;
}"""
    )
    assert start(program).end()[:2] == (0, "")


def test_stop_and_continue(start: Start, compile_c: Compile) -> None:
    supervised = start(
        compile_c(
            CPUID
            + 'int main(void) { open_kvm(); puts("ready"); fflush(stdout); pause(); return 0; }'.replace(
                "pause();", "while (right(1, 1)) usleep(1000);"
            )
        )
    )
    assert supervised.line() == "ready"
    for _ in range(3):
        os.kill(supervised.pid, signal.SIGSTOP)
        _wait_for_state(supervised.pid, ("t", "T"))
        os.kill(supervised.pid, signal.SIGCONT)
        _wait_for_state(supervised.pid, ("R", "S"))
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.end()[0] == 128 + signal.SIGTERM


def _wait_for_state(pid: int, states: tuple[str, str]) -> None:
    until(lambda: state(pid) in states, f"process {pid} is in one of the states {states}")


def test_traced_processes_die_with_the_supervisor(start: Start, compile_c: Compile) -> None:
    program = compile_c(
        CPUID
        + """
int main(void) { open_kvm(); right(0, 0); printf("%d\\n", fork()); fflush(stdout); pause(); return 0; }"""
    )
    supervised = start(program)
    lines = {int(supervised.line()), int(supervised.line())}
    supervised.process.kill()
    supervised.process.wait(PATIENCE)
    for pid in (lines | {supervised.pid}) - {0}:
        assert gone(pid)


def test_when_a_debugger_has_it_the_run_goes_on_with_a_warning(start: Start, compile_c: Compile) -> None:
    program = compile_c(
        CPUID + "#include <sys/ptrace.h>\nint main(void) {"
        " int status; if (fork() == 0) { ptrace(PTRACE_TRACEME, 0, 0, 0); open_kvm(); _exit(right(0, 0)); }"
        " wait(&status); return status; }"
    )
    status, _, end = start(program).end()
    assert (status, end["cpuid"]["active"]) == (0, False)
    assert len(end["warnings"]) == 1
    assert "family/model/stepping" in end["warnings"][0]


LOOK_ALIKE = """
int main(int argc, char **argv) {
    volatile unsigned constant = 0x12a20f34 + (argc - 1);  /* the bytes 0f a2 inside an immediate */
    open_kvm();
    return !(constant == 0x12a20f34 && right(0, 0));
}"""


@pytest.mark.parametrize("options", [[], ["-s"], ["-Wl,--no-eh-frame-hdr"]])
def test_look_alikes_are_left_alone(start: Start, compile_c: Compile, options: list[str]) -> None:
    program = compile_c(CPUID + LOOK_ALIKE, *options)
    image = program.read_bytes()
    candidates = list(Elf(image).find_code(b"\x0f\xa2"))
    sites = find_cpuid_sites(Elf(image))
    assert len(sites.genuine) == 1
    assert len(candidates) > 1
    assert sites.undecided == ()
    assert start(program).end()[:2] == (0, "")


def test_code_of_no_known_function_is_left_alone_with_a_warning(start: Start, compile_c: Compile) -> None:
    program = compile_c(
        CPUID + '__asm__(".text; stray: cpuid; ret"); int main(void) { open_kvm(); return !right(0, 0); }', "-s"
    )
    status, _, end = start(program).end()
    assert (status, end["cpuid"]["sites"], end["cpuid"]["undecided"]) == (0, 1, 1)
    assert "outside any known function" in end["warnings"][0]


def test_finds_agree_with_the_disassembler(compile_c: Compile) -> None:
    program = compile_c(ONCE, "-static")
    listing = subprocess.run(["objdump", "-d", program], capture_output=True, text=True, check=True).stdout
    expected = [int(line.split(":")[0], 16) for line in listing.splitlines() if line.endswith("cpuid")]
    assert list(find_cpuid_sites(Elf(program.read_bytes())).genuine) == expected


def test_finds_are_remembered_and_a_damaged_memory_is_made_anew(
    compile_c: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = str(compile_c(ONCE))
    sites = cpuid_sites_of(program)
    (remembered,) = Path(cache_directory()).iterdir()
    good = remembered.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("plugin.kvm.supervisor.cpuid_sites.find_cpuid_sites", lambda elf: pytest.fail("looked again"))
        assert cpuid_sites_of(program) == sites
    damages = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    damages += [good[:at] for at in range(len(good))]
    damages += [b"[]", b"cpuid-sites 2\n1\n2\n3\n", good + b"1", good * 2, b"\xff" * 100]
    for damage in damages:
        remembered.write_bytes(damage)
        assert cpuid_sites_of(program) == sites
        assert remembered.read_bytes() == good, "made anew"
    remembered.unlink()
    os.mkfifo(remembered)
    assert cpuid_sites_of(program) == sites
    assert remembered.read_bytes() == good
    remembered.unlink()
    remembered.mkdir()
    assert cpuid_sites_of(program) == sites


def test_a_memory_of_another_file_is_made_anew(
    start: Start, compile_c: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no fault but that it is not true."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = compile_c(ONCE)
    expected = start(program).end()
    (remembered,) = Path(cache_directory()).iterdir()
    good, sites = remembered.read_bytes(), cpuid_sites_of(str(program))
    for wrong in ((sites.genuine[0] + 1,), ((1 << 64) - 1,), (1 << 70,), (*sites.genuine, 1)):
        _store(str(remembered), sites._replace(genuine=wrong))
        assert start(program).end() == expected
        assert remembered.read_bytes() == good


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(100), b"\x7fELF\x02\x01" + b"\xff" * 100])
def test_what_is_not_an_elf_file(content: bytes) -> None:
    with pytest.raises(NotElf):
        Elf(content)
