"""Creators: the methods by which a manager makes arrays, and runs functions, where its arrays live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.core.layout import check_mappable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from arrayhost.engines.contract import Engine

__all__ = ["Creators"]


class Creators:
    """What every manager makes arrays with, beside what was registered.

    Notes
    -----
    ``chunks`` says how an array on a cluster is cut, as for `dask.array`; a host keeps an array in one piece. Safety:
    any thread.
    """

    def _running(self) -> Engine:
        raise NotImplementedError  # the manager's own

    def run(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function in the host, or by a worker of the cluster; what it returns is hosted.

        Parameters
        ----------
        func : callable
            Importable in the host.
        *args, **kwargs
            Its arguments; proxies among them arrive as proxies.

        Returns
        -------
        HostedArray or HostedObject

        Raises
        ------
        ArgumentEncodingError
            `func` or an argument cannot be pickled.
        Exception
            Whatever `func` raises, with the host's traceback as a note.

        Notes
        -----
        Cost: one round trip; the result takes twice its memory for a moment.
        """
        return self._running().run(func, args, kwargs)

    def empty(self, shape: Any, dtype: npt.DTypeLike = float, order: str = "C", *, chunks: Any = None) -> HostedArray:
        """Host a new array; its elements are zero, so that no other process's old data show. As `numpy.empty`."""
        return self._make("empty", (shape, _mappable(dtype), order), {}, chunks)

    def zeros(self, shape: Any, dtype: npt.DTypeLike = float, order: str = "C", *, chunks: Any = None) -> HostedArray:
        """Host an array of zeros. As `numpy.zeros`. Cost: one round trip; no memory beyond the array's."""
        return self._make("zeros", (shape, _mappable(dtype), order), {}, chunks)

    def ones(
        self, shape: Any, dtype: npt.DTypeLike | None = None, order: str = "C", *, chunks: Any = None
    ) -> HostedArray:
        """Host an array of ones. As `numpy.ones`. Cost: one round trip; no memory beyond the array's."""
        return self._make("ones", (shape, _mappable(dtype), order), {}, chunks)

    def full(
        self, shape: Any, fill_value: Any, dtype: npt.DTypeLike | None = None, order: str = "C", *, chunks: Any = None
    ) -> HostedArray:
        """Host an array of one value. As `numpy.full`. Cost: one round trip; no memory beyond the array's."""
        return self._make("full", (shape, fill_value, _mappable(dtype), order), {}, chunks)

    def array(
        self, object: Any, dtype: npt.DTypeLike | None = None, *, order: str = "K", ndmin: int = 0, chunks: Any = None
    ) -> HostedArray:
        """Host a copy of an array, or of anything that `numpy.array` takes.

        Parameters
        ----------
        object : array_like
            A hosted array is copied inside its host.
        dtype : dtype_like, optional
        order : {"K", "A", "C", "F"}
        ndmin : int
        chunks : int, tuple or str, optional

        Raises
        ------
        UnsupportedDTypeError
            The elements are Python objects or variable-width strings.
        HostMemoryError
            It does not fit.

        Notes
        -----
        Cost: one round trip and one copy, straight into the memory that the host then shares.
        """
        if isinstance(object, HostedArray):
            return self._make("array", (object, dtype), {"order": order, "ndmin": ndmin}, chunks)
        values = np.array(object, dtype=dtype, order=cast("Any", order), ndmin=ndmin, copy=None)
        check_mappable(values.dtype)
        return self._make("asarray", (values,), {}, chunks)

    def asarray(
        self, a: Any, dtype: npt.DTypeLike | None = None, order: str | None = None, *, chunks: Any = None
    ) -> HostedArray:
        """Host an array unless it is hosted already. As `numpy.asarray`; see `array` for cost and errors."""
        if isinstance(a, HostedArray) and (dtype is None or np.dtype(dtype) == a.dtype) and order in (None, "K", "A"):
            return a
        return self.array(a, dtype, order=order or "K", chunks=chunks)

    def arange(self, *args: Any, dtype: npt.DTypeLike | None = None, chunks: Any = None) -> HostedArray:
        """Host an array of evenly spaced values. As `numpy.arange`."""
        return self._make("arange", args, {"dtype": dtype}, chunks)

    def linspace(self, start: Any, stop: Any, num: int = 50, *, chunks: Any = None, **kwargs: Any) -> HostedArray:
        """Host an array of `num` values from `start` to `stop`. As `numpy.linspace`, without ``retstep``."""
        if kwargs.get("retstep"):
            raise TypeError("linspace(retstep=True) returns two things and only one can be hosted; leave it out")
        return self._make("linspace", (start, stop, num), kwargs, chunks)

    def _make(self, creator: str, args: Sequence[Any], kwargs: dict[str, Any], chunks: Any) -> HostedArray:
        array: HostedArray = self._running().create(f"#{creator}", args, kwargs, chunks)
        return array


def _mappable(dtype: npt.DTypeLike | None) -> npt.DTypeLike | None:
    """Return a dtype as it was given; raise `UnsupportedDTypeError` before it is sent if it cannot be hosted."""
    if dtype is not None:
        check_mappable(np.dtype(dtype))
    return dtype
