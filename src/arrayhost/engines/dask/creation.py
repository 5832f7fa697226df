"""NumPy's functions that make arrays of nothing, as Dask makes them chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CREATORS", "CREATOR_OF"]


def _ones(shape: Any, dtype: Any = None, order: str = "C", *, chunks: Any) -> da.Array:
    return da.ones(_shape(shape), dtype=float if dtype is None else dtype, chunks=chunks)


def _zeros(shape: Any, dtype: Any = float, order: str = "C", *, chunks: Any) -> da.Array:
    return da.zeros(_shape(shape), dtype=float if dtype is None else dtype, chunks=chunks)


def _full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, chunks: Any) -> da.Array:
    values = np.asarray(fill_value, dtype)
    if values.ndim == 0:
        return da.full(_shape(shape), values[()], dtype=values.dtype, chunks=chunks)
    return da.broadcast_to(da.from_array(values), _shape(shape)).rechunk(chunks)


def _arange(*args: Any, dtype: Any = None, chunks: Any, **kwargs: Any) -> da.Array:
    return da.arange(*args, dtype=dtype, chunks=chunks, **kwargs)


def _linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, *, chunks: Any
) -> da.Array:
    return da.linspace(start, stop, num, endpoint=endpoint, dtype=dtype, chunks=chunks)


def _eye(n: int, m: int | None = None, k: int = 0, dtype: Any = float, *, chunks: Any) -> da.Array:
    return da.eye(n, M=m, k=k, dtype=dtype, chunks=chunks)


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)


CREATORS: Mapping[str, Callable[..., da.Array]] = {
    "ones": _ones, "zeros": _zeros, "empty": _zeros, "full": _full, "arange": _arange, "linspace": _linspace,
    "eye": _eye,
}  # fmt: skip
# What is registered is NumPy's own function.
CREATOR_OF: Mapping[Any, str] = {getattr(np, name): name for name in CREATORS}
