"""The text of an array on a cluster: as NumPy prints it, though only its corners are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from arrayhost.engines.dask.computing import block_values, fetched
from arrayhost.engines.dask.operands import current

if TYPE_CHECKING:
    import numpy.typing as npt

    from arrayhost.engines.dask.array import ClusterArray

__all__ = ["as_text"]


def as_text(array: ClusterArray) -> str:
    """What ``repr`` of the same ndarray would be. Cost: the elements that are shown."""
    options = np.get_printoptions()
    if array.size <= options["threshold"] or array._source.section is not None:
        return repr(array.copy())
    edge: int = options["edgeitems"]
    corners = fetched(array._source, lambda: block_values(array._source.link, _corners(current(array), edge)))
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            # NumPy leaves out the middle of an axis of more than two edges: one element stands for all of it.
            corners = np.insert(corners, edge, corners.take(0, axis), axis)
    text = _text_of(corners)
    return text.replace(f"shape={corners.shape}", f"shape={array.shape}")


def _corners(array: Any, edge: int) -> Any:
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            before = (slice(None),) * axis
            ends = [array[(*before, slice(0, edge))], array[(*before, slice(n - edge, n))]]
            array = da.concatenate(ends, axis)
    return array


def _text_of(corners: npt.NDArray[Any]) -> str:
    with np.printoptions(threshold=0):
        return repr(corners)
