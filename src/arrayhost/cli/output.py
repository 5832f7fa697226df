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

__all__ = ["brief", "console", "count", "date", "kind", "print_json", "shape", "table", "when"]

# Piped into another program nothing is cut or wrapped.
_WIDE = 10_000


def console() -> Console:
    """The standard output as rich sees it."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDE)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[RenderableType]],
    *,
    right: Iterable[str] = (),
    folded: Iterable[str] = (),
    cut: Iterable[str] = (),
) -> Table:
    """Make a table without lines.

    Parameters
    ----------
    right : iterable of str
        Columns that hold numbers.
    folded, cut : iterable of str
        Columns that give way, by further lines or by ``…``, where the terminal is narrow; the others keep their width.
    """
    made = Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    folded, cut = set(folded), set(cut)
    for column in made.columns:
        name = str(column.header)
        column.justify = "right" if name in set(right) else "left"
        # Of columns that may wrap rich takes the room first. What is to be cut must not wrap in the end.
        column.no_wrap = name not in folded | cut
        column.overflow = "fold" if name in folded else "ellipsis"
    for row in rows:
        # As text: in a dtype or a command line, what stands in brackets is no markup.
        cells = [Text(cell) if isinstance(cell, str) else cell for cell in row]
        for name, cell in zip(columns, cells, strict=True):
            if name in cut and isinstance(cell, Text):
                cell.no_wrap = True
        made.add_row(*cells)
    return made


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def shape(sizes: Iterable[int]) -> str:
    """Write a shape as NumPy does."""
    return str(tuple(sizes))


def count(n: int, what: str) -> str:
    """Write a number of things: 1 array, 2 arrays."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def brief(program: str) -> str:
    """Write a command line without the folders of its program and of its script."""
    words = program.split(" ")
    return " ".join([*(word.rpartition("/")[2] or word for word in words[:2]), *words[2:]])


def kind(dtype: str) -> str:
    """Write a dtype briefly: of a record, which may have any number of fields, only that it is one."""
    return "record" if dtype[:1] in "[{(" else dtype


def when(seconds: float) -> str:
    """Write a moment in local time briefly: the time of today, else the day."""
    moment = datetime.datetime.fromtimestamp(seconds)
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.date.today() else "%Y-%m-%d")


def date(seconds: float) -> str:
    """Write a moment in local time."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
