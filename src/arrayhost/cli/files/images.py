"""Pictures, as arrays of height, width and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.files import Item
from arrayhost.cli.options import Failure, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.cli.files import Reading


def read(path: Path, kind: str, reading: Reading) -> list[Item]:
    """Read a picture; one with a palette as the colours that it shows."""
    library = _library(path)
    try:
        with library.open(path) as image:
            shown = image.convert("RGBA" if "transparency" in image.info else "RGB") if image.mode == "P" else image
            return [Item("", np.asarray(shown))]
    except library.UnidentifiedImageError as error:
        raise Failure(f"{path}: this is no picture that Pillow can read") from error


def write(path: Path, kind: str, array: npt.NDArray[Any], name: str) -> None:
    """Write a picture: 8 bits of grey, or of 3 or 4 colours."""
    library = _library(path)
    if array.dtype not in (np.dtype("u1"), np.dtype("?")) or not (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    ):
        raise Failure(
            f"{path}: a picture is made of uint8 of shape (height, width) or (height, width, 3 or 4), and this is "
            f"{array.dtype} of shape {array.shape}; for a diagram of any array use 'arrayhost show --plot'"
        )
    library.fromarray(array).save(path)


def _library(path: Path) -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing_extra(f"{path}: a picture", "Pillow", "images") from error
    return Image
