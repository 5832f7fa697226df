"""The array that the story is about: a number of ones, or what a ``.npy`` file holds."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arrayhost.errors import format_bytes
from arrayhost.memory.budget import free_bytes

Array = npt.NDArray[Any]
_NUMERIC = "biufc"
# At the fullest moment: the array, a class's, NumPy's own to check against, a private copy. With the standard library
# its own array and class's, and while it copies the pickle in its host, and here the pickle and the copy.
_COPIES_ALONE = 4
_COPIES_WITH_STDLIB = 8
_OVERHEAD_BYTES = 200 * 2**20  # a dozen Python processes with NumPy


class UnusableSourceError(ValueError):
    """The demo cannot be given on this array; the text says why and what to try."""


@dataclass(frozen=True)
class Source:
    """Where the array comes from.

    Attributes
    ----------
    shape, dtype
        Of the array.
    path : str or None
        The ``.npy`` file; None for ones.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: str | None

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def title(self) -> str:
        """What a reader is told that the story is about."""
        what = self.path or "ones"
        return f"{what}: {self.shape} {self.dtype}, {format_bytes(self.nbytes)}"

    @property
    def head(self) -> Any:
        """The index of the first ten rows: of the only element if there are no rows."""
        return slice(0, 10) if self.shape else ()

    def load(self) -> Array:
        """Make the array in this process: a read-only mapping where there is a file."""
        return load(self.shape[0] if self.path is None else 0, self.path)


def load(size: int, path: str | None) -> Array:
    """Make `size` ones, or open what the file at `path` holds without reading it yet."""
    if path is None:
        return np.ones(size)
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:  # an array without elements cannot be mapped; a file that is cut short fails here again
        return np.asarray(np.load(path, allow_pickle=False))


def ones_source(size: int) -> Source:
    """Describe `size` float64 ones."""
    return Source((size,), np.dtype(np.float64), None)


def file_source(path: Path) -> Source:
    """Describe the array in a ``.npy`` file.

    Raises
    ------
    UnusableSourceError
        The file cannot be read, is not in ``.npy`` format, is cut short, or holds something else than numbers.
    """
    shape, dtype = _read_header(path)
    if dtype.hasobject:
        raise UnusableSourceError(
            f"{path} holds Python objects (dtype {dtype}), which cannot be shared: convert to numbers"
        )
    if dtype.kind not in _NUMERIC:
        raise UnusableSourceError(f"{path} holds dtype {dtype}: the demo adds things up and needs numbers or bools")
    source = Source(shape, dtype, str(path.absolute()))
    _check_length(source, path)
    return source


def _read_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _fortran, dtype = read(file)
            return shape, dtype
    except OSError as error:
        raise UnusableSourceError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnusableSourceError(f"{path} is not a .npy file ({error}): write one with numpy.save") from error


def _check_length(source: Source, path: Path) -> None:
    try:
        source.load()
    except (ValueError, EOFError, OSError) as error:
        raise UnusableSourceError(
            f"{path} is cut short, its header promises {format_bytes(source.nbytes)} ({error})"
        ) from error


def check_room(source: Source, *, stdlib: bool) -> None:
    """See that memory has room for the whole story before anything starts.

    Raises
    ------
    UnusableSourceError
        It does not fit: names the need, what is free, and what to try.
    """
    need = source.nbytes * (_COPIES_WITH_STDLIB if stdlib else _COPIES_ALONE) + _OVERHEAD_BYTES
    free = free_bytes().n_bytes
    if need <= free:
        return
    remedies = ["free some memory"]
    if source.path is None:
        remedies.append("give a smaller --size")
    if stdlib:
        remedies.append("leave the standard library out with --no-stdlib")
    raise UnusableSourceError(
        f"the array does not fit in memory: it has {format_bytes(source.nbytes)}, the demo with its copies"
        f" needs {format_bytes(need)}, {format_bytes(free)} are free: {', or '.join(remedies)}"
    )
