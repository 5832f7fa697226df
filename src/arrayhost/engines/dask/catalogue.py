"""The catalogue of a cluster: which arrays there are, of which chunks each version is made, who has the lock.

Plain values and decisions; no cluster, no clock. `scheduler.CataloguePlugin` keeps one in Dask's scheduler, whose
single thread makes each method one step for everybody.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.errors import ReferentExistsError, ReferentNotFoundError, StaleProxyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["ArrayEntry", "Catalogue", "LeasedLock", "Named"]

Key = Any
"""What Dask calls a task's result by: text, or a tuple of a text and integers."""

# A commit that is asked for again, because the answer was lost, is known by its token for so many commits.
_REMEMBERED_COMMITS = 32


class Named(NamedTuple):
    """What a name stands for: an array, and the view of it in the form of `Selection.to_wire`."""

    ident: str
    view: Any


@dataclass
class LeasedLock:
    """An array's lock: a lease that must be renewed, with waiters in the order in which they came.

    Attributes
    ----------
    owner : str or None
        The token of who has it.
    client : str or None
        The owner's client: with it the lock goes.
    expires : float
        When it is free again unless it is renewed.
    waiting : deque of str
    """

    owner: str | None = None
    client: str | None = None
    expires: float = 0.0
    waiting: deque[str] = field(default_factory=deque)

    def take(self, token: str, client: str, now: float, lease: float) -> bool:
        """Take the lock if it is free and nobody came before; True if `token` has it now."""
        self.expire(now)
        if self.owner == token:
            return True
        if self.owner is not None or (self.waiting and self.waiting[0] != token):
            return False
        if self.waiting:
            self.waiting.popleft()
        self.owner, self.client, self.expires = token, client, now + lease
        return True

    def renew(self, token: str, now: float, lease: float) -> bool:
        """Keep the lock for another `lease` seconds; False if it was lost."""
        self.expire(now)
        if self.owner != token:
            return False
        self.expires = now + lease
        return True

    def release(self, token: str) -> None:
        """Give the lock, or the place in the queue, back."""
        if token in self.waiting:
            self.waiting.remove(token)
        if self.owner == token:
            self.owner = self.client = None

    def expire(self, now: float) -> None:
        """Take the lock from an owner that has not renewed it in time."""
        if self.owner is not None and now >= self.expires:
            self.owner = self.client = None


@dataclass
class ArrayEntry:
    """One array.

    Attributes
    ----------
    ident : str
    dtype : object
        In the form of `core.layout.dtype_to_wire`.
    chunks : tuple of tuple of int
        Sizes of the blocks along each axis.
    keys : list
        The key of each block of the newest version, in the order of their positions.
    version : int
    holders : set of str
        Clients that have proxies.
    grace : float
        Until then it lives without holder and name, because a proxy was pickled.
    names : dict
        In the order in which they were given; the values mean nothing.
    dirty : set of int
        Blocks that have changed since version `saved` was stored.
    saved : int
        The version that is stored, 0 for none.
    depth : int
        Versions since the lineage was cut last.
    """

    ident: str
    dtype: Any
    chunks: tuple[tuple[int, ...], ...]
    keys: list[Key]
    version: int = 1
    holders: set[str] = field(default_factory=set)
    grace: float = 0.0
    names: dict[str, None] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    lock: LeasedLock = field(default_factory=LeasedLock)
    dirty: set[int] = field(default_factory=set)
    saved: int = 0
    depth: int = 0
    writer: str = ""
    commits: dict[str, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return tuple(sum(sizes) for sizes in self.chunks)

    @property
    def store(self) -> str | None:
        """The name under which it is stored: the first, if it has several."""
        return next(iter(self.names), None)

    def unsaved(self) -> None:
        """Let the next one who stores it store all of it."""
        self.saved, self.dirty = 0, set(range(len(self.keys)))

    def to_wire(self) -> dict[str, Any]:
        """Describe the newest version for a client."""
        return {
            "ident": self.ident, "version": self.version, "dtype": self.dtype, "chunks": self.chunks,
            "keys": list(self.keys), "dirty": sorted(self.dirty), "saved": self.saved, "depth": self.depth,
            "name": self.store,
        }  # fmt: skip


class Catalogue:
    """All arrays and names of a cluster.

    Parameters
    ----------
    epoch : str
        Which catalogue this is: what was read from another one may not be committed to this.
    hold, release : callable
        Given an array's identity and keys: keep these chunks in the cluster's memory, or let them go.
    """

    def __init__(
        self, epoch: str, hold: Callable[[str, Sequence[Key]], None], release: Callable[[str, Sequence[Key]], None]
    ) -> None:
        self.epoch = epoch
        self.arrays: dict[str, ArrayEntry] = {}
        self.names: dict[str, Named] = {}
        self._hold, self._release = hold, release

    def entry(self, ident: str) -> ArrayEntry:
        """Find an array.

        Raises
        ------
        StaleProxyError
            It is not there any more.
        """
        try:
            return self.arrays[ident]
        except KeyError:
            raise StaleProxyError(
                "the cluster has freed this array: its last proxy and name are gone, or the scheduler was started anew"
            ) from None

    # -- arrays ----------------------------------------------------------------------------------------------------

    def add(self, ident: str, dtype: Any, chunks: Any, keys: Iterable[Key], client: str) -> ArrayEntry:
        """Take in a new array, whose chunks are being made or are there."""
        sizes = tuple(tuple(axis) for axis in chunks)
        entry = ArrayEntry(ident, dtype, sizes, list(keys), holders={client})
        entry.dirty = set(range(len(entry.keys)))
        self._hold(ident, entry.keys)
        self.arrays[ident] = entry
        return entry

    def conflict(self, ident: str, base: int, token: str, lock: str | None, now: float) -> str | None:
        """Say why a commit cannot be made now; None if it can, or has been made.

        Returns
        -------
        {"version", "lock", "busy"} or None
            The base is not the newest version; the committer's lock has been lost; somebody else's section is open.
        """
        entry = self.entry(ident)
        if token in entry.commits:
            return None
        entry.lock.expire(now)
        if lock is not None and entry.lock.owner != lock:
            return "lock"
        if lock is None and entry.lock.owner is not None:
            return "busy"
        return None if entry.version == base else "version"

    def commit(self, ident: str, token: str, changes: Mapping[int, Key], client: str, chunks: Any = None) -> ArrayEntry:
        """Make the next version of an array; `conflict` has said that it may be.

        Parameters
        ----------
        token : str
            Names this commit: asked for again, it is not made again.
        changes : mapping of int to key
            The blocks that differ from the version before.
        chunks : tuple of tuple of int, optional
            New sizes of the blocks, all of which are in `changes` then.
        """
        entry = self.entry(ident)
        if token in entry.commits:
            return entry
        self._hold(ident, list(changes.values()))
        before = list(entry.keys)
        if chunks is not None:
            entry.chunks = tuple(tuple(axis) for axis in chunks)
            entry.keys = [changes[number] for number in range(len(changes))]
            entry.unsaved()
        else:
            for number, key in changes.items():
                entry.keys[number] = key
        self._let_go(entry, before)
        entry.dirty |= set(changes)
        entry.version += 1
        entry.depth += 1
        entry.writer = client
        entry.commits[token] = entry.version
        while len(entry.commits) > _REMEMBERED_COMMITS:
            del entry.commits[next(iter(entry.commits))]
        return entry

    def saved(self, ident: str, version: int, blocks: Mapping[int, Key], replacements: Mapping[int, Key]) -> None:
        """Note that a version is stored, and that some of its chunks can be had from there.

        Parameters
        ----------
        blocks : mapping of int to key
            What was stored: of these, those that have not changed since are clean now.
        replacements : mapping of int to key
            Keys of the same contents whose recovery begins with the stored file.
        """
        entry = self.arrays.get(ident)
        if entry is None:
            return
        entry.saved = max(entry.saved, version)
        clean = {number for number, key in blocks.items() if entry.keys[number : number + 1] == [key]}
        entry.dirty -= clean
        taken = {number: key for number, key in replacements.items() if number in clean}
        if taken:
            before = list(entry.keys)
            self._hold(ident, list(taken.values()))
            for number, key in taken.items():
                entry.keys[number] = key
            self._let_go(entry, before)
            entry.depth = max(0, entry.version - version)

    def _let_go(self, entry: ArrayEntry, before: Sequence[Key]) -> None:
        unused = set(before).difference(entry.keys)
        if unused:
            self._release(entry.ident, list(unused))

    # -- who keeps what alive ----------------------------------------------------------------------------------------

    def attach(self, ident: str, client: str) -> ArrayEntry:
        """Let a client keep an array alive."""
        entry = self.entry(ident)
        entry.holders.add(client)
        return entry

    def detach(self, ident: str, client: str, now: float) -> None:
        """End a client's hold on an array."""
        entry = self.arrays.get(ident)
        if entry is not None:
            entry.holders.discard(client)
            self._collect(entry, now)

    def export(self, ident: str, until: float) -> None:
        """Let an array live until a time, because a proxy was pickled."""
        entry = self.arrays.get(ident)
        if entry is not None:
            entry.grace = max(entry.grace, until)

    def client_gone(self, client: str, now: float) -> None:
        """End what a client had: holds, locks."""
        for entry in list(self.arrays.values()):
            if entry.lock.client == client:
                entry.lock.owner = entry.lock.client = None
            self.detach(entry.ident, client, now)

    def tick(self, now: float) -> None:
        """Free what only a time that is over kept."""
        for entry in list(self.arrays.values()):
            entry.lock.expire(now)
            self._collect(entry, now)

    def _collect(self, entry: ArrayEntry, now: float) -> None:
        if not entry.holders and not entry.names and entry.grace <= now:
            del self.arrays[entry.ident]
            self._release(entry.ident, list(set(entry.keys)))

    # -- names -------------------------------------------------------------------------------------------------------

    def name(self, name: str, ident: str, view: Any, *, overwrite: bool, now: float) -> None:
        """Give an array a name.

        Raises
        ------
        ReferentExistsError
            It is taken.
        """
        entry = self.entry(ident)
        old = self.names.get(name)
        if old is not None and not overwrite:
            raise ReferentExistsError(f"there is an array named {name!r} already; overwrite=True replaces it")
        self.names[name] = Named(ident, view)
        if not entry.names:
            entry.unsaved()
        entry.names[name] = None
        if old is not None and old.ident != ident:
            before = self.arrays.get(old.ident)
            if before is not None:
                # What is stored under the name is told from what is to be by its version.
                entry.version = max(entry.version, before.version + 1)
            self._unname(old.ident, name, now)

    def find(self, name: str) -> Named:
        """Find what a name stands for.

        Raises
        ------
        ReferentNotFoundError
        """
        try:
            return self.names[name]
        except KeyError:
            known = ", ".join(map(repr, sorted(self.names)[:10])) or "none"
            raise ReferentNotFoundError(f"no array is named {name!r}; there are: {known}") from None

    def forget(self, name: str, now: float) -> None:
        """Take a name away.

        Raises
        ------
        ReferentNotFoundError
        """
        found = self.find(name)
        del self.names[name]
        self._unname(found.ident, name, now)

    def _unname(self, ident: str, name: str, now: float) -> None:
        entry = self.arrays.get(ident)
        if entry is not None:
            if entry.store == name:
                entry.unsaved()
            entry.names.pop(name, None)
            self._collect(entry, now)

    # -- facts -------------------------------------------------------------------------------------------------------

    def count(self, itemsize_of: Callable[[Any], int]) -> dict[str, int]:
        """Count what there is."""
        entries = self.arrays.values()
        return {
            "n_arrays": len(self.arrays), "n_names": len(self.names), "n_objects": 0,
            "n_bytes": sum(math.prod(entry.shape) * itemsize_of(entry.dtype) for entry in entries),
            "n_leases": sum(len(entry.holders) for entry in entries),
        }  # fmt: skip
