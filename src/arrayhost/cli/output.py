"""How results look: JSON for programs; tables and plain sentences for people."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

__all__ = ["console", "date", "print_json", "shape", "table"]

# Piped into another program nothing is cut or wrapped.
_WIDE = 10_000


def console() -> Console:
    """The standard output as rich sees it."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDE)


def table(columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, right: Iterable[str] = ()) -> Table:
    """Make a table without lines; columns in `right` hold numbers."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in made.columns:
        if column.header in set(right):
            column.justify = "right"
    for row in rows:
        # As text: in a dtype or a command line, what stands in brackets is no markup.
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def shape(sizes: Iterable[int]) -> str:
    """Write a shape as NumPy does."""
    return str(tuple(sizes))


def date(seconds: float) -> str:
    """Write a moment in local time."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
