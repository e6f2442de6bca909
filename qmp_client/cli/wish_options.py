"""The options that say what a TD is to be, beside the machine; shared by ``negotiate`` and ``predict``."""

from __future__ import annotations

import click

WISH = (
    click.Option(
        ["--choose"],
        default="model",
        show_default=True,
        help="model, maximal, minimal, or a file with exactly these bits.",
    ),
    click.Option(["--attributes"], help="The TD's 64-bit ATTRIBUTES, instead of what follows from the model."),
    click.Option(["--xfam"], help="The TD's 64-bit XFAM, instead of what follows from the model."),
)
