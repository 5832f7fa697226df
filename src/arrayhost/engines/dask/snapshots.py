"""Snapshots: one version of an array as this process sees it, and how the newest is found out."""

from __future__ import annotations

import itertools
import os
import threading
import uuid
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dask.array as da
from distributed import Future

from arrayhost.core.layout import dtype_from_wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from arrayhost.engines.dask.link import ClusterLink
    from arrayhost.engines.dask.selection import Selection

__all__ = ["ClusterSource", "Section", "Snapshot", "source_for"]


@dataclass(frozen=True)
class Snapshot:
    """One version of an array: its blocks' futures. What it shows never changes.

    Attributes
    ----------
    epoch : str
        The catalogue that it is of.
    version : int
    chunks : tuple of tuple of int
    futures : tuple of Future
        One for each block, in the order of their positions. While they live, the chunks do.
    dirty : frozenset of int
        Blocks that have changed since version `saved` was stored.
    depth : int
        Versions since the lineage was cut last.
    name : str or None
        The name under which it is stored.
    """

    epoch: str
    ident: str
    version: int
    dtype: np.dtype[Any]
    chunks: tuple[tuple[int, ...], ...]
    futures: tuple[Future, ...]
    dirty: frozenset[int]
    saved: int
    depth: int
    name: str | None = None

    @classmethod
    def told(cls, link: ClusterLink, told: Mapping[str, Any]) -> Snapshot:
        """Make one of what the catalogue tells, and keep its chunks."""
        client = link.client
        return cls(
            told["epoch"], told["ident"], told["version"], dtype_from_wire(told["dtype"]),
            tuple(tuple(axis) for axis in told["chunks"]), tuple(Future(key, client) for key in told["keys"]),
            frozenset(told["dirty"]), told["saved"], told["depth"], told["name"],
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return tuple(sum(axis) for axis in self.chunks)

    @property
    def positions(self) -> list[tuple[int, ...]]:
        """Of the blocks, in order."""
        return list(itertools.product(*(range(len(axis)) for axis in self.chunks)))

    def corner(self, number: int) -> tuple[slice, ...]:
        """Where a block lies in the array."""
        return tuple(
            slice(sum(axis[:at]), sum(axis[: at + 1]))
            for axis, at in zip(self.chunks, self.positions[number], strict=True)
        )

    def is_good(self, link: ClusterLink) -> bool:
        """Whether its futures are those of this process's client, and none of their chunks is known to be lost."""
        client = link.client  # connects, and learns the catalogue's epoch
        return (
            self.epoch == link.epoch
            and self.futures[0].client is client
            and not any(future.status in ("lost", "cancelled") for future in self.futures)
        )

    @cached_property
    def array(self) -> da.Array:
        """The array as Dask's."""
        places = self.positions
        name = self.futures[0].key[0] if isinstance(self.futures[0].key, tuple) else ""
        if any(future.key != (name, *at) for at, future in zip(places, self.futures, strict=True)):
            name = f"arrayhost-{self.ident}-{self.version}-{uuid.uuid4().hex[:8]}"
        graph = {(name, *at): future for at, future in zip(places, self.futures, strict=True)}
        return da.Array(graph, name, self.chunks, dtype=self.dtype)


@dataclass(frozen=True)
class Section:
    """What a thread's open section on an array works on.

    Attributes
    ----------
    selection : Selection
        The view that it was opened on.
    values : ndarray
    writeable : bool
    """

    selection: Selection
    values: npt.NDArray[Any]
    writeable: bool

    def shown(self, selection: Selection) -> npt.NDArray[Any] | None:
        """What a view of the array shows of it; None if it is of another part."""
        if selection == self.selection:
            return self.values
        if self.selection.is_whole:
            part: npt.NDArray[Any] = selection.of(self.values)
            return part
        return None


class ClusterSource:
    """One array of a cluster as this process knows it; all proxies of it and of its views share it.

    While it lives, the cluster keeps the array.
    """

    named = None  # it is found by its identity, in whatever process

    def __init__(self, link: ClusterLink, ident: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.link, self.ident, self.shape, self.dtype = link, ident, shape, dtype
        self._here = threading.local()
        self._newest: Snapshot | None = None
        weakref.finalize(self, _detach, link, ident).atexit = False  # the client's end tells as much

    @property
    def section(self) -> Section | None:
        """The open section of this thread on the array."""
        found: Section | None = getattr(self._here, "section", None)
        return found

    @section.setter
    def section(self, value: Section | None) -> None:
        self._here.section = value

    @property
    def held(self) -> str | None:
        """The token by which this thread has the array's lock."""
        found: str | None = getattr(self._here, "held", None)
        return found

    @held.setter
    def held(self, value: str | None) -> None:
        self._here.held = value

    def hold(self) -> Any:
        """Whether this thread is inside a section on the array."""
        return self.section

    def snapshot(self) -> Snapshot:
        """The newest version. Cost: one round trip, a short one if nobody has written since the last time.

        Raises
        ------
        StaleProxyError
            The array is gone.
        """
        link, known = self.link, self._newest
        if known is not None and not known.is_good(link):
            known = None
        told = link.call("latest", ident=self.ident, have=0 if known is None else known.version)
        if told is None:
            assert known is not None
            return known
        return self.learn(told)

    def learn(self, told: Mapping[str, Any]) -> Snapshot:
        """Take in what the catalogue told of a version."""
        newest = self._newest = Snapshot.told(self.link, told)
        return newest

    def forget(self) -> None:
        """Ask anew next time, because chunks were lost."""
        self._newest = None

    def export(self) -> None:
        """Let the array live for as long as a pickled proxy may be on its way."""
        assert self.link.client is not None  # connected, or nothing could be told
        self.link.tell("export", ident=self.ident, seconds=self.link.handle_grace)


def source_for(link: ClusterLink, ident: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ClusterSource:
    """What this process knows of an array."""
    with _sources_lock:
        source = _sources.get((id(link), ident))
        if source is None:
            source = _sources[id(link), ident] = ClusterSource(link, ident, shape, dtype)
        return source


_sources: weakref.WeakValueDictionary[tuple[int, str], ClusterSource] = weakref.WeakValueDictionary()
_sources_lock = threading.RLock()  # a finalizer may come here while it is held


def _detach(link: ClusterLink, ident: str) -> None:
    link.tell("detach", ident=ident)


def _after_fork() -> None:
    global _sources_lock
    _sources_lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
