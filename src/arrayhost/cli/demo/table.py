"""The outcome for a reader: a table for eyes, JSON for programs, and progress while it runs."""

import contextlib
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from arrayhost.cli.demo.source import Source
from arrayhost.cli.demo.story import Row

_WIDTH_OFF_TERMINAL = 160
_SECOND_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def in_seconds(seconds: float | None) -> str:
    """Say a time with three digits.

    >>> in_seconds(0.02345)
    '23.4 ms'
    """
    if seconds is None:
        return "-"
    scale, unit = next((row for row in _SECOND_UNITS if seconds >= row[0]), _SECOND_UNITS[-1])
    value = seconds / scale
    return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.{1 if value >= 9.995 else 2}f} {unit}"


def in_times(ratio: float | None) -> str:
    """Say how many times faster.

    >>> in_times(31.4)
    '31 x'
    """
    if ratio is None:
        return ""
    return f"{ratio:,.0f} x" if ratio >= 9.95 else f"{ratio:.2g} x" if ratio < 0.1 else f"{ratio:.1f} x"


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Show on a terminal's stderr how far the story is; gives the function to tell."""
    console = Console(stderr=True)
    # No refresh thread: the story forks, and a forked child may inherit a lock that such a thread held.
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("starting the hosts", total=None)

        def before(number: int, total: int, title: str) -> None:
            bar.update(task, completed=number, total=total, description=escape(title), refresh=True)

        yield before


def print_table(source: Source, rows: Sequence[Row]) -> None:
    """Print the rows, and in a sentence whether all was right."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OFF_TERMINAL)
    console.print(_table(source, rows))
    wrong = sum(not row.right for row in rows)
    verdict = f"[red]{wrong} of {len(rows)} results are wrong" if wrong else f"[green]All {len(rows)} results are right"
    console.print(
        f"{verdict}[/], checked against NumPy {np.__version__}; Python {platform.python_version()}.", highlight=False
    )


def _table(source: Source, rows: Sequence[Row]) -> Table:
    table = Table(title=escape(f"arrayhost demo: {source.title}"), title_justify="left", show_lines=False)
    table.add_column("step", overflow="fold", ratio=5)
    table.add_column("")
    table.add_column("what it gave", overflow="fold", ratio=4)
    table.add_column("arrayhost", justify="right", no_wrap=True)
    table.add_column("standard library", overflow="fold", ratio=4)
    table.add_column("ratio", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    mark = "[green]✓[/]" if row.right else "[bold red]✗[/]"
    time = "" if row.stdlib_seconds is None else in_seconds(row.stdlib_seconds)
    note = f"[dim]{escape(row.stdlib_note)}[/]" if row.stdlib_note else ""
    stdlib = "\n".join(part for part in (time, note) if part) or "-"
    return escape(row.step), mark, escape(row.result), in_seconds(row.seconds), stdlib, in_times(row.ratio)


def as_json(source: Source, rows: Sequence[Row]) -> dict[str, Any]:
    """Give the outcome as plain values."""
    return {
        "source": source.path or "ones",
        "shape": list(source.shape),
        "dtype": source.dtype.str,
        "nbytes": source.nbytes,
        "right": all(row.right for row in rows),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
