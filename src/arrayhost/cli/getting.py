"""``arrayhost get``: an array into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from arrayhost.cli.chunks import over_quiet
from arrayhost.cli.files import KINDS, kind_of, write
from arrayhost.cli.options import NAME, Failure, connected, host_options, json_option
from arrayhost.cli.output import print_json
from arrayhost.cli.progress import progress
from arrayhost.core.records import to_plain
from arrayhost.memory.files import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray


@click.command()
@click.argument("name", type=NAME)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@host_options
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--format", "format_", type=click.Choice(KINDS), help="What kind of file; by default its ending tells.")
@json_option
def get(name: str, file: Path, address: str | None, overwrite: bool, format_: str | None, json_: bool) -> int:
    """Write the array NAME to FILE, in one consistent state.

    FILE is complete or not there: it is written under another name first. Kinds of files are those of 'put'.
    """
    kind = kind_of(file, format_)
    if file.exists() and not overwrite:
        raise Failure(f"{file} exists; choose another file, or give --overwrite")
    manager = connected(address)
    array = manager[name]
    record = manager.inspect_array(name)
    if not file.parent.is_dir():
        raise Failure(f"{file}: there is no folder {file.parent}")
    with replaced(file) as path:
        if kind == "npy":
            _save(array, path, name)
        else:
            write(path, kind, array.copy("K"), name)
    if json_:
        print_json({"file": str(file), "format": kind, "array": to_plain(record)})
    return 0


def _save(array: HostedArray, path: Path, name: str) -> None:
    """Write NumPy's format a piece at a time."""
    if not array.size or not (array.flags.c_contiguous or array.flags.f_contiguous):
        write(path, "npy", array.copy(), name)
        return
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    made = np.lib.format.open_memmap(path, "w+", array.dtype, array.shape, fortran)
    header_bytes = made.offset
    del made  # the header is what was wanted: writing through a mapping, a full disk would be a signal and no error

    def save(pieces: Iterator[npt.NDArray[Any]]) -> None:
        done = 0
        with open(path, "r+b") as file:
            file.seek(header_bytes)
            for piece in pieces:
                piece.tofile(file)
                done += piece.nbytes
                show(done)

    with progress(f"get {name}", array.nbytes) as show:
        over_quiet(array, save)
