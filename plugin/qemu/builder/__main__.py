"""``scripts/build-qemu``: build the patched QEMU, or find the one that was built from the same inputs."""

from __future__ import annotations

import argparse
from pathlib import Path

from plugin.qemu.builder import compile as build_steps
from plugin.qemu.builder import patches, requirements
from plugin.qemu.builder.apply import apply
from plugin.qemu.builder.cache import Slot, inputs_hash
from plugin.qemu.builder.check import check, series_of
from plugin.qemu.builder.patches import Series
from plugin.qemu.builder.source import DistributionSource, OwnTree, Source, Tarball
from plugin.qemu.trouble import Missing, cache_folder, end_with_trouble, say


def main(arguments: list[str]) -> None:
    """Run the command. Raises Trouble."""
    options = parse(arguments)
    if options.check:
        report(series_of(options.check[0]), Path(options.check[1]))
        return
    cache = cache_folder() / "qemu"
    source = chosen_source(options, cache)
    series = patches.load(patches.FOLDER)
    settings = (*build_steps.FLAGS, *series.fixes)
    slot = Slot(cache, inputs_hash(source.identity(), settings, build_inputs(series, options.source)))
    if not slot.built:
        provide_requirements(source, install=options.install_deps)
        build(slot, source, series)
    slot.make_current()
    print(slot.binary if options.print_path else f"patched QEMU: {slot.binary}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="build-qemu",
        description="Build a QEMU with the QMP commands for a TD's CPUID, as small as it gets: x86_64, KVM, TCG,"
        " TDX, virtio. What was built from the same inputs before is found in the cache.",
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--source", type=Path, metavar="DIR", help="a QEMU tree of yours; it is copied, not changed")
    origin.add_argument("--tarball", type=Path, metavar="FILE", help="a release tarball of QEMU")
    origin.add_argument(
        "--check",
        nargs=2,
        metavar=("SERIES", "DIR"),
        help="only say whether a series (a release's, or a folder) applies to a tree, and what moved; 1 if it does not",
    )
    parser.add_argument(
        "--install-deps", action="store_true", help="install the packages that are missing (with sudo if not root)"
    )
    parser.add_argument("--print-path", action="store_true", help="print nothing but the binary's path on stdout")
    return parser.parse_args(arguments)


def chosen_source(options: argparse.Namespace, cache: Path) -> Source:
    """Return the source that the user named, the distribution's if none. Raises Missing."""
    if options.source:
        return OwnTree(options.source)
    if options.tarball:
        return Tarball(options.tarball)
    return DistributionSource(cache / "downloads")


def report(series: Series, tree: Path) -> None:
    """Say whether a series fits a tree. Exits with 1 if it does not; raises Missing for no QEMU tree."""
    fits, said = check(series, tree)
    print("\n".join(said))
    print(f"the series {'fits' if fits else 'does not fit'} QEMU {patches.version_of(tree)}")
    if not fits:
        raise SystemExit(1)


def build_inputs(series: Series, own_tree: Path | None) -> list[Path]:
    """Every file of ours that the result depends on. What a tree that is not unpacked yet needs is not known: all."""
    if own_tree is None:
        applied = series.patches
    else:
        applied = [] if patches.has_commands(own_tree) else patches.needed(series, own_tree)
    return [*applied, build_steps.DEVICES]


def provide_requirements(source: Source, *, install: bool) -> None:
    """Make sure that QEMU can be built here. Raises Missing, or Trouble from apt-get."""
    unpacking = requirements.SOURCE_PACKAGE if isinstance(source, DistributionSource) else ()
    wanted = requirements.REQUIREMENTS + unpacking
    lacking = requirements.missing(wanted)
    if lacking and install:
        requirements.install(lacking)
        lacking = requirements.missing(wanted)
    if lacking:
        raise Missing(requirements.explain(lacking))


def build(slot: Slot, source: Source, series: Series) -> None:
    """Build into the slot. Raises Trouble; then nothing but the log is left."""
    with slot.building() as work:
        if slot.built:  # by the build that we waited for
            return
        slot.log.write_bytes(b"")
        tree, finished = work / "tree", work / "finished"
        source.unpack(tree, slot.log)
        if patches.has_commands(tree):
            say("the tree has the QMP commands already: building it as it is")
        else:
            apply(series, tree, slot.log)
        python = build_steps.private_python(slot.folder, slot.log)
        folder = build_steps.configure(tree, python, slot.log)
        build_steps.compile_emulator(folder, slot.log)
        build_steps.stage(tree, folder, finished, python, slot.log)
        slot.install(finished)
        say("removing what it was built from")
    say(f"built QEMU in {slot.home}")


if __name__ == "__main__":
    raise SystemExit(end_with_trouble(main))
