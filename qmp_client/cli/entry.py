"""Where ``tdx-cpuid`` starts.

The simulation's start-up counts against every QEMU that is started under it, so ``sim`` goes its way before anything
else is loaded.
"""

import gc
import os
import sys

MAY_RUN_LONG = ("agent", "baseline", "drain", "matrix", "submit", "watch")


def main() -> None:
    """Run the program and leave with its exit status."""
    if sys.argv[1:2] == ["sim"] and sys.argv[2:3] not in (["--help"], ["-h"]):
        from plugin.kvm.command import main as simulate  # noqa: PLC0415  for sim alone

        sys.exit(simulate(sys.argv[2:]))
    _open_standard_streams()
    if sys.argv[1:2] and sys.argv[1] not in MAY_RUN_LONG:
        gc.disable()  # the command is short, and nearly all that it makes while it loads stays
    from qmp_client.cli.program import run  # noqa: PLC0415  sim has gone its way

    status = run(sys.argv[1:])
    gc.freeze()  # or the interpreter's own last collections go through all of it: longer than a report takes to make
    sys.exit(status)


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, before a file or socket of ours gets its number."""
    for number, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  a number, open until the end


if __name__ == "__main__":
    main()
