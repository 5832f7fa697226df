"""Files that ``put`` reads and ``get`` writes: one module a kind, one row here for each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.cli.options import Failure

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

__all__ = ["KINDS", "Item", "Reading", "kind_of", "read", "write"]

# Kind of file, the module that knows it, the endings of names by which it is recognised.
_TABLE = {
    "npy": ("npy", (".npy",)),
    "npz": ("npz", (".npz",)),
    "csv": ("tables", (".csv", ".tsv")),
    "parquet": ("tables", (".parquet", ".pq")),
    "image": ("images", (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")),
    "raw": ("raw", (".raw", ".bin", ".dat")),
}
KINDS = tuple(_TABLE)


class Item(NamedTuple):
    """An array found in a file; its name within the file where that has several."""

    name: str
    array: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file does not tell itself.

    Attributes
    ----------
    dtype : numpy.dtype or None
    shape : tuple of int or None
        With at most one -1.
    offset : int
        Bytes to skip.
    delimiter : str or None
        Between the columns of a text file.
    header : bool
        Whether the first line of a text file names the columns.
    matrix : bool
        Make one array of two axes of a table, instead of one with a field for each column.
    """

    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] | None = None
    offset: int = 0
    delimiter: str | None = None
    header: bool = True
    matrix: bool = False


def kind_of(path: Path, given: str | None = None) -> str:
    """Tell what kind of file it is, by its name unless it was given."""
    if given is not None:
        return given
    for kind, (_, endings) in _TABLE.items():
        if path.suffix.lower() in endings:
            return kind
    known = " ".join(ending for _, endings in _TABLE.values() for ending in endings)
    raise Failure(
        f"{path}: cannot tell what kind of file this is; give --format, or a name that ends in one of {known}"
    )


def read(path: Path, kind: str, reading: Reading) -> list[Item]:
    """Read the arrays of a file; large ones may be mapped, and are then read when they are copied."""
    try:
        items: list[Item] = _module(kind).read(path, kind, reading)
    except (ValueError, TypeError, KeyError) as error:  # what the libraries raise for a file that is not what it says
        raise Failure(f"{path}: {error}") from error
    return items


def write(path: Path, kind: str, array: npt.NDArray[Any], name: str) -> None:
    """Write a private array to a file.

    Parameters
    ----------
    name : str
        Of the array, for kinds of files that hold names.
    """
    try:
        _module(kind).write(path, kind, array, name)
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"{path}: {error}") from error


def _module(kind: str) -> Any:
    return importlib.import_module(f"arrayhost.cli.files.{_TABLE[kind][0]}")
