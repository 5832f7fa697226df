"""What an array's elements are like: extremes, mean, spread, gaps, a histogram. Computed a piece at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.chunks import over_quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray

__all__ = ["Summary", "summarize"]

N_BINS = 10
_TIMES = "mM"


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one array, or of one of its fields.

    Attributes
    ----------
    min, max : number or str or None
        Of the finite elements; text for times; None without any.
    mean, std : float or None
        Of the finite elements.
    n_nan : int
        Elements that are NaN or NaT.
    n_infinite : int
    counts : tuple of int
        How many finite elements lie in each of 10 bins of equal width.
    edges : tuple of float
        The bins' 11 edges.
    """

    min: Any
    max: Any
    mean: float | None
    std: float | None
    n_nan: int
    n_infinite: int
    counts: tuple[int, ...]
    edges: tuple[float, ...]


def summarize(array: HostedArray, done: Callable[[int], None]) -> dict[str, Summary]:
    """Summarize an array of numbers or times: by field where it has fields, else under the empty name.

    Fields of other types are left out. Cost: the elements are read twice, without a copy of the array.
    """
    names = array.dtype.names or ("",)
    read = 0

    def told(pieces: Iterator[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
        nonlocal read
        for piece in pieces:
            yield piece
            read += piece.nbytes
            done(read // 2)

    found = {}
    for name in names:
        dtype = array.dtype if not name else array.dtype[name]
        if dtype.kind in f"biuf{_TIMES}":
            # One field's elements; subarrays count as so many elements.
            part = array[name] if name else array
            read = 0
            found[name] = _summarize(part, dtype, told)
    return found


def _summarize(array: HostedArray, dtype: np.dtype[Any], told: Callable[[Any], Any]) -> Summary:
    moments = over_quiet(array, lambda pieces: _moments(told(pieces)))
    if not moments.n:
        return Summary(None, None, None, None, moments.n_nan, moments.n_infinite, (), ())
    low, high = float(moments.low), float(moments.high)
    counts, edges = over_quiet(array, lambda pieces: _histogram(told(pieces), low, high))
    mean = moments.mean
    spread = math.sqrt(max(moments.squares / moments.n, 0.0))
    if dtype.kind in _TIMES:
        first, last = (str(value.astype(dtype)) for value in (moments.low, moments.high))
        return Summary(first, last, None, None, moments.n_nan, moments.n_infinite, counts, edges)
    return Summary(
        moments.low.item(), moments.high.item(), mean, spread, moments.n_nan, moments.n_infinite, counts, edges
    )


class _Moments:
    """Count, mean and sum of squared distances from it, brought together piece by piece without cancellation."""

    def __init__(self) -> None:
        self.n = self.n_nan = self.n_infinite = 0
        self.mean = self.squares = 0.0
        self.low: Any = None
        self.high: Any = None

    def add(self, values: npt.NDArray[Any]) -> None:
        finite = self._finite(values)
        if not finite.size:
            return
        low, high = finite.min(), finite.max()
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        mean = float(finite.mean(dtype=np.float64))
        squares = float(np.square(finite.astype(np.float64) - mean).sum())
        n = self.n + finite.size
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.n * finite.size / n
        self.mean += apart * finite.size / n
        self.n = n

    def _finite(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values, gaps = _as_numbers(values)
        if values.dtype.kind == "f":
            self.n_infinite += int(np.isinf(values).sum())
        self.n_nan += int(gaps.sum()) if gaps is not None else 0
        return _finite(values, gaps)


def _as_numbers(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return times and truth values as integers, and where gaps are; None if the dtype has none."""
    if values.dtype.kind in _TIMES:
        return values.astype(np.int64), np.isnat(values)
    if values.dtype.kind == "b":
        return values.astype(np.uint8), None
    return values, np.isnan(values) if values.dtype.kind == "f" else None


def _finite(values: npt.NDArray[Any], gaps: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if gaps is None:
        return values.reshape(-1)
    found: npt.NDArray[Any] = values[~gaps & np.isfinite(values)]
    return found


def _moments(pieces: Iterator[npt.NDArray[Any]]) -> _Moments:
    found = _Moments()
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in pieces:
            found.add(piece)
    return found


def _histogram(
    pieces: Iterator[npt.NDArray[Any]], low: float, high: float
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    counts = np.zeros(N_BINS, np.int64)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # A range that spans nearly all of float64 has no width in it.
    edges = np.linspace(low / 2, high / 2, N_BINS + 1) * 2
    for piece in pieces:
        values = _finite(*_as_numbers(piece)).astype(np.float64)
        inner = np.searchsorted(edges[1:-1], values, side="right")
        counts += np.bincount(inner, minlength=N_BINS)
    return tuple(counts.tolist()), tuple(edges.tolist())
