"""Arrays of a cluster taken into the catalogue, so that they have a proxy, versions and perhaps a name."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from arrayhost.core.layout import check_mappable, dtype_from_wire, dtype_to_wire
from arrayhost.engines.dask.computing import block_values, kept
from arrayhost.engines.dask.selection import Selection
from arrayhost.engines.dask.snapshots import source_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    from distributed import Future

    from arrayhost.engines.dask.link import ClusterLink

__all__ = ["adopt", "adopt_result", "default_chunks", "proxy_of_told", "register_proxy", "scattered"]

_make_proxy: Callable[..., Any]

# Values of up to so many bytes travel inside a graph; larger ones go to the workers by themselves.
SMALL_BYTES = 2**20


def register_proxy(make: Callable[..., Any]) -> None:
    """Say how the proxy of a source and a selection is made."""
    global _make_proxy
    _make_proxy = make


def default_chunks(link: ClusterLink, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: Any = None) -> Any:
    """Cut an array of that shape: as asked, or into pieces of the manager's size; regularly."""
    wanted = "auto" if chunks is None else chunks
    sizes = da.core.normalize_chunks(wanted, shape, limit=link.options.chunk, dtype=dtype)
    return tuple(tuple(int(n) for n in axis) for axis in sizes)


def adopt(
    link: ClusterLink,
    array: da.Array,
    name: str | None = None,
    *,
    overwrite: bool = False,
    exist_ok: bool = False,
    stored_version: int | None = None,
) -> Any:
    """Compute an array, leave it on the cluster, and make its proxy.

    Parameters
    ----------
    link : ClusterLink
    array : da.Array
    name : str, optional
        Named in the same step.
    overwrite, exist_ok : bool
        What to do if the name is taken: give it to the new array, or return the old one.
    stored_version : int, optional
        The array comes from the store, and is this version.

    Raises
    ------
    UnsupportedDTypeError
        Its elements are Python objects.
    ReferentExistsError
        The name is taken.
    """
    check_mappable(array.dtype)
    if stored_version is None:
        link.check_writable()
    result, futures = kept(link, array)
    keys = [future.key for future in futures]
    told = link.call(
        "add", ident=uuid.uuid4().hex, dtype=dtype_to_wire(np.dtype(result.dtype)), chunks=result.chunks, keys=keys,
        name=name, overwrite=overwrite, exist_ok=exist_ok, version=stored_version or 1,
        saved=stored_version is not None,
    )  # fmt: skip
    return proxy_of_told(link, told)


def adopt_result(link: ClusterLink, array: da.Array) -> Any:
    """Compute an array whose size is not known before; bring it here if it is small, else make its proxy."""
    result, _ = kept(link, array)
    return block_values(link, result) if result.nbytes <= link.result_limit else adopt(link, result)


def proxy_of_told(link: ClusterLink, told: Mapping[str, Any]) -> Any:
    """Make the proxy of an array that the catalogue has described."""
    shape = tuple(sum(axis) for axis in told["chunks"])
    source = source_for(link, told["ident"], shape, dtype_from_wire(told["dtype"]))
    source.learn(told)
    return _make_proxy(source, None if told["view"] is None else Selection.from_wire(told["view"]))


def scattered(link: ClusterLink, values: npt.NDArray[Any], chunks: Any) -> da.Array:
    """Bring an ndarray of this process to the workers, block by block.

    Notes
    -----
    Nothing but these copies knows the elements: a block is lost with the worker that has it, unless it is stored.
    """
    blocks = da.core.slices_from_chunks(chunks)
    if values.nbytes <= SMALL_BYTES:
        return da.from_array(np.array(values, order="C"), chunks=chunks, name=f"arrayhost-put-{uuid.uuid4().hex}")
    name = f"arrayhost-put-{uuid.uuid4().hex}"
    graph: dict[Any, Future] = {}
    for corner, place in zip(blocks, np.ndindex(*map(len, chunks)), strict=True):
        graph[(name, *place)] = link.scatter(np.asarray(values[corner], order="C"))
    return da.Array(graph, name, chunks, dtype=values.dtype)
