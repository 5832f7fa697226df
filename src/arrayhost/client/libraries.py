"""What other libraries ask of an array, by methods that ndarray does not have: one function for each such method.

Libraries that take anything with ``__array__`` need none of these. They are for those that would otherwise take a
hosted array for a sequence of Python objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray

__all__ = ["METHODS"]


def to_numpy(self: HostedArray, dtype: npt.DTypeLike | None = None, copy: bool = False) -> npt.NDArray[Any]:
    """Convert to an ndarray, as ``to_numpy()`` of pandas, xarray and others does.

    Parameters
    ----------
    dtype : dtype_like, optional
    copy : bool
        False: the live memory, read-only, unless `dtype` needs a copy; as ``np.asarray(a, dtype)``. True: a private,
        consistent copy; as ``a.copy()``.

    Notes
    -----
    Cost: no round trip where the memory is mapped. Matplotlib, for instance, calls this: without it the columns of a
    two-dimensional array would be taken for its rows.
    """
    return np.array(self, dtype, copy=True) if copy else np.asarray(self, dtype)


def __arrow_array__(self: HostedArray, type: Any = None) -> Any:
    """Convert to a `pyarrow.Array`, for ``pyarrow.array(a)`` and ``pyarrow.table({"a": a})``.

    Parameters
    ----------
    type : pyarrow.DataType, optional

    Returns
    -------
    pyarrow.Array
        The live memory wherever pyarrow does not copy an ndarray, such as for numbers.
    """
    import pyarrow  # only who has imported it calls this

    return pyarrow.array(np.asarray(self), type=type)


METHODS: dict[str, Callable[..., Any]] = {function.__name__: function for function in (to_numpy, __arrow_array__)}
