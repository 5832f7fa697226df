"""``arrayhost ls``: what a host holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from arrayhost.cli.options import connected, host_options, json_option
from arrayhost.cli.output import console, kind, print_json, shape, table, when
from arrayhost.core.records import to_plain
from arrayhost.errors import format_bytes

if TYPE_CHECKING:
    from arrayhost.core.records import ArrayRecord

_COLUMNS = ("NAME", "DTYPE", "SHAPE", "SIZE", "VERSION", "HOLDERS", "CREATED", "BY")


@click.command()
@host_options
@click.option("--all", "-a", "all_", is_flag=True, help="Arrays without a name too.")
@json_option
def ls(address: str | None, all_: bool, json_: bool) -> int:
    """List the arrays of a host, by name."""
    records = [record for record in connected(address).inspect().arrays if record.names or all_]
    records.sort(key=lambda record: (not record.names, record.names, record.created))
    if json_:
        print_json([to_plain(record) for record in records])
    else:
        console().print(table(_COLUMNS, map(_row, records), right=("SIZE", "VERSION", "HOLDERS"), folded=("NAME",)))
    return 0


def _row(record: ArrayRecord) -> tuple[str, ...]:
    torn = " (torn)" if record.statistics.torn else ""
    return (
        ", ".join(record.names) or "-",
        kind(record.dtype),
        shape(record.shape),
        format_bytes(record.nbytes),
        f"{record.statistics.version}{torn}",
        str(len(record.holders)),
        when(record.created),
        record.creator.user,
    )
