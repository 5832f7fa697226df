"""Computing on the cluster: values here, or chunks that stay there; again from the newest version if some were lost."""

from __future__ import annotations

import math
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

import dask.array as da
import numpy as np
from dask.core import flatten
from distributed import KilledWorker, futures_of

from arrayhost.engines.dask.blocks import VersionGoneError
from arrayhost.errors import ChunkLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt
    from distributed import Future

    from arrayhost.engines.dask.link import ClusterLink
    from arrayhost.engines.dask.snapshots import ClusterSource

__all__ = ["block_futures", "block_values", "fetched", "kept", "persisted", "regular", "values"]

T = TypeVar("T")

# Up to so many bytes a worker puts a result together; larger ones are put together here, block by block, so that no
# worker has to hold them in one piece.
_ONE_PIECE_BYTES = 2**20
_ATTEMPTS = 3


def fetched(sources: ClusterSource | Iterable[ClusterSource], work: Callable[[], T], attempts: int = _ATTEMPTS) -> T:
    """Do some work on the newest versions; begin again if chunks of them were lost on the way.

    Raises
    ------
    ChunkLostError
        They are lost for good: the workers that had them have died, and nothing tells how to make them again.
    """
    for attempt in range(attempts):
        try:
            return work()
        except (CancelledError, VersionGoneError, KilledWorker) as error:
            for source in [sources] if hasattr(sources, "forget") else sources:
                source.forget()
            if attempt == attempts - 1 or isinstance(error, KilledWorker):
                raise ChunkLostError(f"a part of the data is lost with the worker that had it: {error}") from error
    raise AssertionError("unreachable")


def values(link: ClusterLink, arrays: Sequence[da.Array]) -> list[Any]:
    """Compute arrays, all at once, and bring them here: as ndarrays, and as scalars where they have no axes."""
    small = [array for array in arrays if array.nbytes <= _ONE_PIECE_BYTES]  # False for a size that is not known
    large = [persisted(link, array) for array in arrays if not array.nbytes <= _ONE_PIECE_BYTES]
    futures = link.client.compute(small, sync=False)
    link.wait([*futures, *(future for array in large for future in block_futures(array))])
    done = iter(link.gather(futures))
    whole = iter([assembled(link, array) for array in large])
    return [_scalar(next(done)) if array.nbytes <= _ONE_PIECE_BYTES else next(whole) for array in arrays]


def block_values(link: ClusterLink, array: da.Array) -> npt.NDArray[Any]:
    """Compute one array; an ndarray also where it has no axes, and one's own."""
    (found,) = values(link, [array])
    result: npt.NDArray[Any] = np.asarray(found)
    return result if result.flags.writeable and result.flags.owndata else result.copy()


def _scalar(value: Any) -> Any:
    return value[()] if isinstance(value, np.ndarray) and not value.ndim else value


def assembled(link: ClusterLink, array: da.Array) -> npt.NDArray[Any]:
    """Put the blocks of an array that has been persisted together here."""
    whole = np.empty(array.shape, array.dtype)
    for future, corner in zip(block_futures(array), da.core.slices_from_chunks(array.chunks), strict=True):
        whole[corner] = link.gather(future)
    return whole


def persisted(link: ClusterLink, array: da.Array) -> da.Array:
    """Have an array's blocks computed, and kept by the workers; does not wait for them."""
    result: da.Array = link.client.persist(array)
    return result


def block_futures(array: da.Array) -> list[Future]:
    """The futures of the blocks of a persisted array, in the order of their positions."""
    by_key = {future.key: future for future in futures_of(array)}
    return [by_key[key] for key in flatten(array.__dask_keys__())]


def regular(array: da.Array) -> da.Array:
    """Cut an array so that its blocks are of one size along each axis, but for the last: as Zarr stores them."""
    wanted = tuple(_regular_axis(axis) for axis in array.chunks)
    return array if wanted == array.chunks else array.rechunk(wanted)


def _regular_axis(sizes: Sequence[int]) -> tuple[int, ...]:
    n, size = sum(sizes), max(sizes)
    if not n:
        return (0,)
    return (size,) * (n // size) + ((n % size,) if n % size else ())


def kept(link: ClusterLink, array: da.Array) -> tuple[da.Array, list[Future]]:
    """Compute an array and leave it on the cluster, its size known, regularly cut.

    Returns
    -------
    array : da.Array
        Persisted.
    futures : list of Future
        Of its blocks, which have been computed.
    """
    if any(math.isnan(n) for n in array.shape):
        array = persisted(link, array)
        link.wait(block_futures(array))
        with link.client.as_current():
            array.compute_chunk_sizes()
    result = persisted(link, regular(array))
    futures = block_futures(result)
    link.wait(futures)
    return result, futures
