"""``arrayhost demo``: its options, its errors and its exit status."""

import json
import signal
from pathlib import Path

import click

from arrayhost.cli.demo.source import Source, UnusableSourceError, check_room, file_source, ones_source
from arrayhost.cli.demo.story import tell
from arrayhost.cli.demo.table import as_json, print_table, progress
from arrayhost.errors import HostMemoryError, UnsupportedPlatformError

_SIZE = 50_000_000
_BAD_USAGE = 2


class UnusableError(click.ClickException):
    """The demo cannot run on what was asked for."""

    exit_code = _BAD_USAGE


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--size", type=click.IntRange(min=1), help=f"How many ones, instead of {_SIZE:,}.")
@click.option("--stdlib/--no-stdlib", default=True, help="Run the standard library beside it (the default) or not.")
@click.option("--json", "json_", is_flag=True, help="Print machine-readable results.")
def demo(file: Path | None, size: int | None, stdlib: bool, json_: bool) -> int:
    """Tell what arrayhost does, timed beside the standard library's managers.

    The array is 50,000,000 ones or, with FILE, what that .npy file holds: numbers of any kind and shape. Each result is
    checked against NumPy. Exit status: 0 all right, 1 a wrong result, 2 bad usage, 130 interrupted.
    """
    source = _source(file, size)
    _prepare(source, stdlib=stdlib)
    try:
        with progress() as before:
            rows = tell(source, stdlib=stdlib, before=before)
    except (HostMemoryError, UnsupportedPlatformError) as error:
        raise UnusableError(str(error)) from error
    if json_:
        click.echo(json.dumps(as_json(source, rows), indent=2))
    else:
        print_table(source, rows)
    return 0 if all(row.right for row in rows) else 1


def _source(file: Path | None, size: int | None) -> Source:
    if file is None:
        return ones_source(_SIZE if size is None else size)
    if size is not None:
        raise click.UsageError("give either FILE or --size: a file has a size of its own")
    try:
        return file_source(file)
    except UnusableSourceError as error:
        raise UnusableError(str(error)) from error


def _prepare(source: Source, *, stdlib: bool) -> None:
    # A shell starts background jobs with SIGINT ignored; here Ctrl-C, or a script's kill -INT, always ends the demo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_room(source, stdlib=stdlib)
    except UnusableSourceError as error:
        raise UnusableError(str(error)) from error
