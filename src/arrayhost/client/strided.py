"""`as_strided`: views of any shape and strides, for which NumPy's own function does not ask the array."""

from __future__ import annotations

import operator
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from arrayhost.client.array import HostedArray
from arrayhost.core.layout import MAX_NDIM
from arrayhost.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["as_strided"]


def as_strided(
    x: HostedArray, shape: Sequence[int] | None = None, strides: Sequence[int] | None = None, *, writeable: bool = True
) -> HostedArray:
    """Make a view of a hosted array with the given shape and strides, as `numpy.lib.stride_tricks.as_strided` does.

    Parameters
    ----------
    x : HostedArray
        The view begins at its first element.
    shape : sequence of int, optional
        Of the view; that of `x` by default.
    strides : sequence of int, optional
        Of the view, in bytes; those of `x` by default.
    writeable : bool
        False gives a read-only view.

    Returns
    -------
    HostedArray
        On the same memory: a view, as slices are; it can be passed to other processes.

    Raises
    ------
    ValueError
        As many strides as axes are needed; or the view would reach outside of what `x` spans, from its first byte in
        memory to its last, which NumPy does not check.
    UnsupportedError
        `x` is on a cluster, where an array is not one piece of memory.

    Notes
    -----
    Cost: no round trip. Safety: elements of the view may share memory, and a write to it is one atomic write of the
    array, in which the last of such elements counts, or another one of them.
    """
    if not isinstance(x, HostedArray):
        raise TypeError(f"as_strided() takes a hosted array, not a {type(x).__name__}")
    if x.evaluator is not None:
        raise UnsupportedError("as_strided() takes arrays of hosts: an array on a cluster is not one piece of memory")
    layout = x.layout
    sizes = layout.shape if shape is None else tuple(map(operator.index, shape))
    steps = layout.strides if strides is None else tuple(map(operator.index, strides))
    view = replace(layout, shape=sizes, strides=steps, writeable=layout.writeable and writeable)
    if len(sizes) != len(steps) or len(sizes) > MAX_NDIM or min(sizes, default=0) < 0:
        raise ValueError(
            f"as_strided() cannot make a view with shape {sizes} and strides {steps}: it needs one length, 0 or more, "
            f"and one stride for each of at most {MAX_NDIM} axes"
        )
    if max(view.nbytes, *map(abs, steps)) > sys.maxsize:
        raise ValueError(f"a view with shape {sizes} and strides {steps} is larger than NumPy can describe")
    (begin, end), (first, last) = layout.extent(), view.extent()
    if first < begin or last > end:
        raise ValueError(
            f"a view with shape {sizes} and strides {steps} would reach from byte {first - begin} to byte "
            f"{last - begin} of an array that spans {end - begin} bytes"
        )
    return x._with_layout(view)
