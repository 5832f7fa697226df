"""Assigning: which blocks a value goes to, and the tasks that make their next versions."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from arrayhost.engines.dask.adopting import SMALL_BYTES, default_chunks, scattered
from arrayhost.engines.dask.blocks import BlockWrite, write_block
from arrayhost.engines.dask.commits import Update, commit
from arrayhost.engines.dask.computing import block_values, fetched, kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arrayhost.engines.dask.selection import Selection
    from arrayhost.engines.dask.snapshots import ClusterSource, Snapshot

__all__ = ["assign", "rechunk"]


def assign(source: ClusterSource, base: Snapshot, selection: Selection, value: Any) -> Update:
    """Make the update that writes a value to a selection of an array.

    Parameters
    ----------
    value : array_like or da.Array
        Broadcast to the selection and cast to the array's dtype, as NumPy does in an assignment.

    Raises
    ------
    ValueError
        It does not broadcast.
    """
    update = Update(source, base)
    if not isinstance(value, da.Array):
        value = np.asarray(value)
    whole = selection.whole_axes(value)
    if isinstance(whole, np.ndarray) and whole.nbytes > SMALL_BYTES and selection.is_basic:
        whole = scattered(source.link, whole, _aligned(selection, base, whole.shape))
        update.fragile = True
    layers: dict[str, Any] = {}
    depends: set[str] = set()
    if isinstance(whole, da.Array):
        if not selection.is_basic:
            whole = block_values(source.link, whole)
        else:
            whole = whole.rechunk(_aligned(selection, base, whole.shape))
            layers, depends = dict(whole.dask.layers), {whole.name}
    name = f"arrayhost-write-{uuid.uuid4().hex}"
    graph = dict(_tasks(name, base, selection, whole))
    if not graph:
        return update
    dependencies = {**(whole.dask.dependencies if depends else {}), name: depends}
    client = source.link.client
    hlg = HighLevelGraph({**layers, name: graph}, dependencies)
    futures = client.get(hlg, list(graph), sync=False)
    update.blocks = {key[1]: future for key, future in zip(graph, futures, strict=True)}
    return update


def _aligned(selection: Selection, base: Snapshot, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Chunks of a value of which each lies within one block of the array; an axis that is repeated has one."""
    return tuple((1,) if n == 1 else axis for n, axis in zip(shape, selection.starts(base.chunks), strict=True))


def _tasks(name: str, base: Snapshot, selection: Selection, value: Any) -> Any:
    positions = base.positions
    for piece in selection.pieces(base.chunks):
        at = positions[piece.number]
        shape = tuple(axis[n] for axis, n in zip(base.chunks, at, strict=True))
        write = BlockWrite(shape, base.dtype, piece.local)
        if isinstance(value, da.Array):
            part: Any = (value.name, *(0 if n == 1 else m for n, m in zip(value.shape, piece.place, strict=True)))
        else:
            part = value[tuple(slice(None) if n == 1 else w for n, w in zip(value.shape, piece.parts, strict=True))]
        old = () if write.replaces_all else (base.futures[piece.number],)
        yield (name, piece.number), (write_block, write, part, *old)


def rechunk(source: ClusterSource, chunks: Any) -> None:
    """Publish a version with the same elements in other chunks."""

    def attempt() -> tuple[list[Update], Any]:
        base = source.snapshot()
        wanted = default_chunks(source.link, base.shape, base.dtype, chunks)
        array, futures = kept(source.link, base.array.rechunk(wanted))
        return [Update(source, base, dict(enumerate(futures)), array.chunks)], None

    commit(source.link, lambda: fetched(source, attempt))
