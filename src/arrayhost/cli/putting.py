"""``arrayhost put``: a file's arrays into the host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from arrayhost.cli.chunks import copy_pieces
from arrayhost.cli.files import KINDS, Item, Reading, kind_of, read
from arrayhost.cli.options import NAME, Failure, connected, host_options, json_option
from arrayhost.cli.output import print_json
from arrayhost.cli.progress import progress
from arrayhost.core.addresses import TCP_PREFIX
from arrayhost.core.names import check_name
from arrayhost.core.records import to_plain
from arrayhost.errors import ReferentExistsError

if TYPE_CHECKING:
    import numpy.typing as npt

    from arrayhost.client.array import HostedArray
    from arrayhost.manager import ArrayManager


class _DType(click.ParamType):  # type: ignore[type-arg]  # generic in new releases of click only
    """A dtype as NumPy writes it."""

    name = "dtype"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> np.dtype[Any]:
        """Read a dtype."""
        try:
            dtype: np.dtype[Any] = np.dtype(value)
        except (TypeError, ValueError, SyntaxError):
            self.fail(f"{value!r} is no dtype; write float32, int64, <u2, U20", param, ctx)
        return dtype


class _Shape(click.ParamType):  # type: ignore[type-arg]  # generic in new releases of click only
    """Sizes of axes, such as 24,60."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read a shape."""
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in value.replace("x", ",").split(",") if part.strip())
        except ValueError:
            sizes = (-2,)
        if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
            self.fail(f"{value!r} is no shape; write 24,60 or -1,60", param, ctx)
        return sizes


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@host_options
@click.option("--name", type=NAME, help="The array's name; by default the file's, without its ending.")
@click.option("--overwrite", is_flag=True, help="Let the name change over if there is one; in one step.")
@click.option("--format", "format_", type=click.Choice(KINDS), help="What kind of file; by default its ending tells.")
@click.option("--dtype", type=_DType(), help="Of the elements; raw files need it, all others are converted to it.")
@click.option("--shape", type=_Shape(), help="Of the array: 24,60 or -1,60.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Bytes to skip at the start of a raw file.")
@click.option("--delimiter", help="Between the columns of a text file; a comma by default.")
@click.option("--header/--no-header", default=True, help="Whether the first line of a text file names the columns.")
@click.option("--matrix", is_flag=True, help="Make a table of numbers an array of two axes, without names of columns.")
@json_option
def put(
    file: Path,
    address: str | None,
    name: str | None,
    overwrite: bool,
    format_: str | None,
    dtype: np.dtype[Any] | None,
    shape: tuple[int, ...] | None,
    offset: int,
    delimiter: str | None,
    header: bool,
    matrix: bool,
    json_: bool,
) -> int:
    """Put the array of FILE into the host, under a name.

    .npy, .npz (each of its arrays as FILE.NAME), .csv, .tsv, .parquet (a field for each column), pictures, and raw
    elements with --dtype and --shape.
    """
    kind = kind_of(file, format_)
    manager = connected(address)
    items = read(file, kind, Reading(dtype, shape, offset, delimiter, header, matrix))
    named = _names(file, name, items)
    for item_name in named:
        if not overwrite and item_name in manager:
            raise _taken(item_name)
    for item_name, array in named.items():
        _put(manager, item_name, array if kind == "raw" else _converted(file, array, dtype, shape), overwrite=overwrite)
    if json_:
        print_json([to_plain(manager.inspect_array(item_name)) for item_name in named])
    return 0


def _names(file: Path, name: str | None, items: list[Item]) -> dict[str, Any]:
    """Name what a file holds."""
    base = name or file.name.partition(".")[0]
    try:
        return {check_name(f"{base}.{item.name}" if item.name else base): item.array for item in items}
    except ValueError as error:
        raise click.UsageError(f"{error}; give another with --name") from error


def _converted(file: Path, array: Any, dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None) -> Any:
    try:
        if dtype is not None:
            array = array.astype(dtype)
        return array if shape is None else array.reshape(shape)
    except (ValueError, TypeError) as error:
        raise Failure(f"{file}: {error}") from error


def _put(manager: ArrayManager, name: str, array: Any, *, overwrite: bool) -> None:
    """Copy an array into the host a piece at a time; it gets its name when it is complete."""
    source = np.asarray(array)
    if not (source.flags.c_contiguous or source.flags.f_contiguous):
        source = np.ascontiguousarray(source)
    try:
        if str(manager.address).startswith(TCP_PREFIX):
            manager.put(name, source, overwrite=overwrite)  # streamed, where a section would fetch it first
            return
        hosted = _copied(manager, name, source)
        manager.put(name, hosted, overwrite=overwrite)
    except ReferentExistsError as error:
        raise _taken(name) from error


def _copied(manager: ArrayManager, name: str, source: npt.NDArray[Any]) -> HostedArray:
    """Host a copy, showing how far it is."""
    hosted = manager.empty(source.shape, source.dtype, "C" if source.flags.c_contiguous else "F")
    with progress(f"put {name}", source.nbytes) as done, hosted.write() as target:
        copy_pieces(source, target, done)
    return hosted


def _taken(name: str) -> Failure:
    return Failure(f"there is an array named {name!r} already; choose another with --name, or give --overwrite")
