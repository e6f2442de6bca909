"""Executes a command that lacks something: `without 310:1 311:1 COMMAND...` fails these system calls with an errno.

`without ptrace` gives up the right to look into processes that are not dumpable, which an ordinary user has not.
"""

import ctypes
import os
import struct
import sys

from plugin.kvm.supervisor.bpf import RET_ALLOW, RET_ERRNO, Program

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP, CAP_SYS_PTRACE = 24, 19


class FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def deny(number: int, error: int) -> None:
    program = Program()
    program.load(0)
    program.if_equal(number, "denied")
    program.give(RET_ALLOW)
    program.label("denied")
    program.give(RET_ERRNO | error)
    code = program.assemble()
    description = FilterProgram(len(code) // struct.calcsize("<HBBI"), code)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(description), 0, 0):
        sys.exit("no filter could be installed")


def main() -> None:
    arguments = sys.argv[1:]
    while arguments[0] == "ptrace" or arguments[0].partition(":")[0].isdigit():
        what = arguments.pop(0)
        if what == "ptrace":
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)  # an ordinary user has it not
        else:
            number, _, error = what.partition(":")
            deny(int(number), int(error))
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main()
