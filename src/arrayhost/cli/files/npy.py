"""NumPy's own file of one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.files import Item

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.cli.files import Reading


def read(path: Path, kind: str, reading: Reading) -> list[Item]:
    """Map the array of a file; a file of Python objects is refused, since reading it would run code."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        # Without elements there is nothing to map.
        array = np.load(path, allow_pickle=False)
    return [Item("", array)]


def write(path: Path, kind: str, array: npt.NDArray[Any], name: str) -> None:
    """Write an array."""
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
