"""Arrays in files, opened without being read: what `put` is given as a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["opened"]


def opened(value: Any) -> Any:
    """Open what a path names, a ``.npy`` file or a Zarr store; return anything else as it is.

    Text is a value like any other; a path is a `pathlib.Path` or another path-like object.

    Raises
    ------
    OSError, ValueError
        There is nothing, or something else.
    """
    if not isinstance(value, os.PathLike):
        return value
    path = Path(value)
    if path.is_file():
        return np.load(path, mmap_mode="r")
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path} is no .npy file; for Zarr stores: pip install 'arrayhost[dask]'") from error
    return zarr.open_array(path, mode="r")
