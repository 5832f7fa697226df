"""NumPy's archive of several arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.files import Item

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.cli.files import Reading


def read(path: Path, kind: str, reading: Reading) -> list[Item]:
    """Read all arrays of an archive."""
    with np.load(path, allow_pickle=False) as archive:
        return [Item(name, archive[name]) for name in archive.files]


def write(path: Path, kind: str, array: npt.NDArray[Any], name: str) -> None:
    """Write an archive of one array."""
    with open(path, "wb") as file:
        np.savez_compressed(file, **{name: array})  # type: ignore[arg-type]  # the stubs take any keyword for the flag
