"""What kinds of values options take."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path)
POSITIVE = click.FloatRange(min=0, min_open=True)
