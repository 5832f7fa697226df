"""What Dask gets of a hosted array: the array's handle, of which its workers make views, block by block.

`dask.array.from_array` copies whatever looks like an array, and then keeps the copy's pieces in its graph. What it is
given here looks like a data set in a file, which Dask slices when a task runs: `to_dask` hands that over by itself, and
`HostedArray.copy` where it is Dask that asks.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.evaluating import ArrayProxy

if TYPE_CHECKING:
    from types import FrameType

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray

__all__ = ["DaskSource", "is_from_array", "to_dask"]

_CORE = "dask.array.core"


class DaskSource:
    """A hosted array as Dask takes a data set: by shape, dtype and slices.

    Parameters
    ----------
    array : HostedArray

    Attributes
    ----------
    shape, dtype
        The array's.

    Notes
    -----
    Pickles to the array's handle, by which the array is looked for when the first block is asked for: Dask's scheduler
    unpickles graphs and need not reach the host. Where the memory can be mapped, a block is a read-only view of it,
    elsewhere a copy that the host sends. Safety: any thread.
    """

    # No `__array_function__` and no `copy`: Dask would take it for an array, and copy it.
    __slots__ = ("_array", "_handle", "_token", "dtype", "shape")

    def __init__(self, array: HostedArray) -> None:
        layout = array.layout
        self.shape, self.dtype = layout.shape, layout.dtype
        self._array: HostedArray | None = array
        self._handle: tuple[Any, ...] = ()
        self._token = array.__dask_tokenize__()  # type: ignore[attr-defined]  # given to it by a table

    @property
    def ndim(self) -> int:
        """The array's."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        part = self._found()[index]
        if not isinstance(part, ArrayProxy):
            return np.asarray(part)
        block = np.asarray(part)
        if part.mapped:
            # A worker is judged by its resident memory, and these pages are not its own: they go with the block.
            start, stop = part.layout.extent()
            weakref.finalize(block, part.mapping.let_go, start, stop).atexit = False
        return block

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self._found().__array__(dtype, copy)

    def __dask_tokenize__(self) -> Any:
        """Identify the contents: the array at the version that it had when this was made."""
        return self._token

    def __getstate__(self) -> tuple[Any, ...]:
        handle = self._handle if self._array is None else self._array.__reduce__()
        return handle, self._token, self.dtype, self.shape

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._array = None
        self._handle, self._token, self.dtype, self.shape = state

    def _found(self) -> HostedArray:
        if self._array is None:
            make, arguments = self._handle
            self._array = make(*arguments)
        return self._array


def is_from_array(frame: FrameType) -> bool:
    """Whether a frame is that of `dask.array.from_array`."""
    core = sys.modules.get(_CORE)
    return core is not None and frame.f_globals is vars(core) and frame.f_code.co_name == "from_array"


def to_dask(a: HostedArray, chunks: Any = "auto") -> Any:
    """Make a Dask array whose blocks are views of a hosted array, made by the workers when they compute.

    Parameters
    ----------
    a : HostedArray
        One on a cluster gives its own chunks, as ``a.to_dask()``, cut anew if `chunks` says so.
    chunks : int, tuple, str
        As for `dask.array.from_array`.

    Returns
    -------
    dask.array.Array
        Its graph has the array's handle and no element. Workers on the host's machine map the memory and work on
        read-only views of it. Others are sent their blocks over TCP, if the host listens there and they have its key,
        for instance from the file that ``ARRAYHOST_KEY_FILE`` names.

    Raises
    ------
    ImportError
        Dask is not installed.
    TypeError
        `a` is no hosted array.

    Notes
    -----
    ``dask.array.from_array(a)`` does the same. Cost: no round trip and no copy.

    It keeps the array alive as long as it lives itself.

    Consistency: blocks are live memory, as ``np.asarray(a)`` is. What is computed after a write shows it, and a write
    during a computation may be seen by some blocks and not by others. The blocks' names carry the array's version at
    the time of this call: where results are kept under their names, by ``persist`` or in futures, make the Dask array
    anew after a write, and it will not be taken for the old one.

    Examples
    --------
    >>> arrayhost.to_dask(a, chunks=1_000_000).mean().compute()
    """
    try:
        da: Any = importlib.import_module("dask.array")
    except ImportError as error:
        raise ImportError("to_dask() needs Dask: pip install 'arrayhost[dask]'") from error
    if not isinstance(a, ArrayProxy):
        raise TypeError(f"to_dask() takes a hosted array, not a {type(a).__name__}")
    if a.evaluator is not None:
        cut = a.to_dask()  # type: ignore[attr-defined]  # an array on a cluster has it
        return cut if chunks == "auto" else cut.rechunk(chunks)
    return da.from_array(DaskSource(a), chunks=chunks, inline_array=True)
