"""``arrayhost show``: everything about one array."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arrayhost.cli.options import NAME, connected, host_options, json_option
from arrayhost.cli.output import console, date, print_json, shape, table
from arrayhost.cli.plotting import plot
from arrayhost.cli.progress import progress
from arrayhost.cli.summary import Summary, summarize
from arrayhost.core.records import to_plain
from arrayhost.errors import TornArrayError, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrayhost.core.records import ArrayRecord

_BAR = 40


@click.command()
@click.argument("name", type=NAME)
@host_options
@click.option("--plot", "plot_", type=click.Path(dir_okay=False, path_type=Path), help="Draw the array into FILE.png.")
@click.option("--values/--no-values", default=True, help="Read the elements (the default) or only what the host knows.")
@json_option
def show(name: str, address: str | None, plot_: Path | None, values: bool, json_: bool) -> int:
    """Show an array: what it is, who has it, who has its lock and who waits, and what its elements are like."""
    manager = connected(address)
    record = manager.inspect_array(name)
    found: dict[str, Summary] = {}
    if values or plot_ is not None:
        array = manager[name]
        if plot_ is not None:
            plot(array, name, plot_)
        if values:
            try:
                with progress(f"read {name}", record.nbytes) as done:
                    found = summarize(array, done)
            except TornArrayError:
                found = {}  # what is known of it is shown, that it is torn above all
    if json_:
        print_json(to_plain(record) | {"values": {field: to_plain(one) for field, one in found.items()}})
        return 0
    out = console()
    out.print(table(("", ""), _facts(name, record), folded=("",)))
    for field, summary in found.items():
        out.print()
        out.print(table(("", ""), _figures(field, summary), folded=("",)))
        out.print(table(("from", "to", "count", ""), _bars(summary), right=("from", "to", "count")))
    return 0


def _facts(name: str, record: ArrayRecord) -> Iterator[tuple[str, str]]:
    row = record.statistics
    yield "name", name
    others = [other for other in record.names if other != name]
    if others:
        yield "also named", ", ".join(others)
    yield "dtype", record.dtype
    yield "shape", shape(record.shape)
    yield "order", record.order or "neither C nor F"
    yield "bytes", f"{record.nbytes:,} ({format_bytes(record.nbytes)})"
    yield "version", f"{row.version}{', being written' if row.writing else ''}"
    if row.torn:
        yield "TORN", f"process {row.torn_pid} died while it wrote: write the whole array, or call recover()"
    by = f", process {record.creator.pid}" if record.creator.pid else ""
    yield "created", f"{date(record.created)} by {record.creator.user}{by}"
    if record.creator.program:
        yield "", record.creator.program
    yield "lock", record.lock.mode + (f", process {record.lock.owner_pid}" if record.lock.owner_pid else "")
    for waiter in record.lock.waiters:
        yield "  waits", f"process {waiter.pid}, for {waiter.seconds:.1f} s"
    yield "holders", str(len(record.holders))
    for holder in record.holders:
        yield "  holds", f"process {holder.pid}: {holder.program}"
    for key, value in record.attrs.items():
        # As JSON: whatever a program has put there cannot steer the terminal.
        yield f"  {key}", json.dumps(value)


def _figures(field: str, summary: Summary) -> Iterator[tuple[str, str]]:
    if field:
        yield "field", field
    for label in ("min", "max", "mean", "std"):
        value = getattr(summary, label)
        if value is not None:
            yield label, _number(value)
    if summary.n_nan:
        yield "missing", f"{summary.n_nan:,}"
    if summary.n_infinite:
        yield "infinite", f"{summary.n_infinite:,}"


def _bars(summary: Summary) -> Iterator[tuple[str, str, str, str]]:
    most = max(summary.counts, default=0)
    for number, low, high in zip(summary.counts, summary.edges[:-1], summary.edges[1:], strict=True):
        yield _number(low), _number(high), f"{number:,}", "█" * round(_BAR * number / max(most, 1))


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
