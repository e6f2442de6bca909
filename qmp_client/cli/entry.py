"""Where ``tdx-cpuid`` starts.

The simulation's start-up counts against every QEMU that is started under it, so ``sim`` goes its way before anything
else is loaded.
"""

import gc
import sys


def main() -> None:
    """Run the program and leave with its exit status."""
    if sys.argv[1:2] == ["sim"] and sys.argv[2:3] not in (["--help"], ["-h"]):
        from plugin.kvm.command import main as simulate  # noqa: PLC0415

        sys.exit(simulate(sys.argv[2:]))
    gc.disable()  # a command is short, and nearly all that it makes while it loads stays
    from qmp_client.cli.program import run  # noqa: PLC0415

    status = run(sys.argv[1:])
    gc.freeze()  # or the interpreter's own last collections go through all of it: longer than a report takes to make
    sys.exit(status)


if __name__ == "__main__":
    main()
