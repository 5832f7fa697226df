"""The catalogue in Dask's scheduler: a plugin that answers clients, and frees what clients that died had."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from arrayhost.core.layout import dtype_from_wire
from arrayhost.engines.dask.catalogue import ArrayEntry, Catalogue
from arrayhost.errors import ReferentExistsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed.scheduler import Scheduler

__all__ = ["CataloguePlugin"]

_TICK_SECONDS = 1.0


class CataloguePlugin(SchedulerPlugin):
    """Keeps the catalogue of a cluster; the first client that connects brings it, all others find it there.

    Requests are handled in the scheduler's one thread, one after the other: none of them waits between looking and
    changing.
    """

    name = "arrayhost-catalogue"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Begin with an empty catalogue."""
        self.scheduler = scheduler
        self.started = time.time()
        self.directory: str | None = None
        self.durable = False
        self.stored: dict[str, Any] = {}
        self.n_requests = 0
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.catalogue = self._empty()
        requests = (
            self.hello, self.stored_names, self.add, self.latest, self.commit, self.saved, self.wait, self.lock,
            self.renew, self.unlock, self.get_name, self.put_name, self.forget_name, self.list_names, self.attributes,
            self.pulse, self.facts,
        )  # fmt: skip
        scheduler.handlers.update({f"arrayhost_{handler.__name__}": self._counted(handler) for handler in requests})
        scheduler.stream_handlers.update({"arrayhost_detach": self.detach, "arrayhost_export": self.export})
        tick = PeriodicCallback(self._tick, _TICK_SECONDS * 1000)
        scheduler.periodic_callbacks["arrayhost"] = tick
        tick.start()

    def _empty(self) -> Catalogue:
        return Catalogue(uuid.uuid4().hex, self._hold, self._release)

    def _counted(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def handle(*args: Any, **kwargs: Any) -> Any:
            self.n_requests += 1
            return handler(*args, **kwargs)

        return handle

    # -- chunks: kept for an array as Dask keeps them for a client ---------------------------------------------------

    def _hold(self, ident: str, keys: Sequence[Any]) -> None:
        missing = [key for key in keys if key not in self.scheduler.tasks]
        if missing:
            raise LookupError(f"the cluster does not know chunk {missing[0]!r}")
        self.scheduler.client_desires_keys(keys, f"arrayhost-{ident}")

    def _release(self, ident: str, keys: Sequence[Any]) -> None:
        self.scheduler.client_releases_keys(keys, f"arrayhost-{ident}")
        if ident not in self.catalogue.arrays:
            self.scheduler.remove_client(f"arrayhost-{ident}")
            self._changed.pop(ident, asyncio.Event()).set()

    # -- what the scheduler tells ------------------------------------------------------------------------------------

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """End what a client had."""
        if not client.startswith("arrayhost-"):
            self.catalogue.client_gone(client, time.monotonic())
            self._wake_all()

    def restart(self, scheduler: Scheduler) -> None:
        """Begin anew: Dask forgets all data when it is told to restart."""
        self.catalogue = self._empty()
        self._wake_all()

    def _tick(self) -> None:
        self.catalogue.tick(time.monotonic())
        self._wake_all()

    def _wake(self, ident: str) -> None:
        self._changed.pop(ident, asyncio.Event()).set()

    def _wake_all(self) -> None:
        for ident in list(self._changed):
            self._wake(ident)

    async def _sleep(self, ident: str, deadline: float) -> None:
        """Wait until something about an array has changed, or until a time."""
        try:
            await asyncio.wait_for(self._changed[ident].wait(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            pass

    # -- requests ----------------------------------------------------------------------------------------------------

    def hello(self, directory: str | None = None, durable: bool = False) -> dict[str, Any]:
        """Tell which catalogue this is; take the directory over if there is none yet."""
        is_new = directory is not None and self.directory is None
        if is_new:
            self.directory, self.durable = directory, durable
        return {
            "epoch": self.catalogue.epoch, "directory": self.directory, "durable": self.durable, "is_new": is_new,
        }  # fmt: skip

    def stored_names(self, names: dict[str, Any]) -> None:
        """Take in what a directory held when it was opened."""
        self.stored = {name: about for name, about in names.items() if name not in self.catalogue.names}

    def add(
        self, client: str, ident: str, dtype: Any, chunks: Any, keys: Any, name: str | None = None,
        overwrite: bool = False, exist_ok: bool = False, version: int = 1, saved: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Take in a new array and name it, in one step; with `exist_ok` return the one that has the name."""
        if name is not None and not overwrite and (name in self.catalogue.names or (name in self.stored and not saved)):
            if exist_ok:
                return self.get_name(client, name)
            raise ReferentExistsError(f"there is an array named {name!r} already; overwrite=True replaces it")
        entry = self.catalogue.add(ident, dtype, chunks, keys, client)
        entry.version = version
        if name is not None:
            old = self.stored.pop(name, None)
            self.catalogue.name(name, ident, None, overwrite=overwrite, now=time.monotonic())
            if old is not None and not saved:
                entry.version = old["version"] + 1
        if saved:
            entry.saved, entry.dirty = version, set()
        return self._told(entry, client)

    def _told(self, entry: ArrayEntry, client: str, name: str | None = None) -> dict[str, Any]:
        """Describe an array to a client, for which its chunks are kept from here on."""
        # Those that were lost with a worker for good are not known any more: the client finds out by using them.
        self.scheduler.client_desires_keys([key for key in entry.keys if key in self.scheduler.tasks], client)
        named = self.catalogue.names.get(name) if name is not None else None
        return {"epoch": self.catalogue.epoch, "view": named and named.view, **entry.to_wire()}

    def latest(self, client: str, ident: str, have: int = 0) -> dict[str, Any] | None:
        """Describe the newest version, or nothing if the client has that."""
        entry = self.catalogue.attach(ident, client)
        return None if entry.version == have else self._told(entry, client)

    async def commit(self, client: str, epoch: str, token: str, parts: Any, deadline: float) -> dict[str, Any]:
        """Make the next versions of one array or several, all or none.

        Parameters
        ----------
        parts : list of dict
            ``ident``, ``base``, ``changes`` (pairs of block and key), ``chunks`` or None, ``lock``: the token by which
            the committer has it, or None.
        deadline : float
            Seconds to wait for sections of others.
        """
        until = time.monotonic() + deadline
        while True:
            if epoch != self.catalogue.epoch:
                return {"refused": "epoch"}
            now = time.monotonic()
            reasons = {}
            for part in parts:
                reason = self.catalogue.conflict(part["ident"], part["base"], token, part["lock"], now)
                if reason is not None:
                    reasons[part["ident"]] = reason
            if not reasons:
                break
            for ident, reason in reasons.items():
                if reason != "busy" or now >= until:
                    entry = self.catalogue.entry(ident)
                    return {"refused": reason, "ident": ident, "version": entry.version, "writer": entry.writer}
            await self._sleep(next(iter(reasons)), min(until, now + _TICK_SECONDS))
        entries = []
        for part in parts:
            if part["changes"]:
                entries.append(
                    self.catalogue.commit(part["ident"], token, dict(part["changes"]), client, part["chunks"])
                )
                self._wake(part["ident"])
        return {"refused": None, "arrays": [self._told(entry, client) for entry in entries]}

    def saved(self, ident: str, version: int, blocks: Any, replacements: Any) -> None:
        """Note that a version is stored."""
        self.catalogue.saved(ident, version, dict(blocks), dict(replacements))

    async def wait(self, ident: str, since: int, timeout: float) -> int:
        """Wait until an array has another version."""
        until = time.monotonic() + timeout
        while (version := self.catalogue.entry(ident).version) == since and time.monotonic() < until:
            await self._sleep(ident, until)
        return version

    async def lock(self, client: str, ident: str, token: str, timeout: float, lease: float) -> bool:
        """Take an array's lock, after everybody who came before."""
        until = time.monotonic() + timeout
        lock = self.catalogue.entry(ident).lock
        try:
            while not lock.take(token, client, time.monotonic(), lease):
                if token not in lock.waiting:
                    lock.waiting.append(token)
                if time.monotonic() >= until or client not in self.scheduler.clients:
                    return False
                await self._sleep(ident, min(until, time.monotonic() + _TICK_SECONDS))
                self.catalogue.entry(ident)
            return True
        finally:
            if token in lock.waiting:
                lock.waiting.remove(token)

    def renew(self, ident: str, token: str, lease: float) -> bool:
        """Keep a lock."""
        return self.catalogue.entry(ident).lock.renew(token, time.monotonic(), lease)

    def unlock(self, ident: str, token: str) -> None:
        """Give a lock back."""
        entry = self.catalogue.arrays.get(ident)
        if entry is not None:
            entry.lock.release(token)
            self._wake(ident)

    def get_name(self, client: str, name: str) -> dict[str, Any]:
        """Describe the array of a name; or what is stored of it, if nobody has opened that yet."""
        if name in self.stored and name not in self.catalogue.names:
            return {"stored": self.stored[name]}
        entry = self.catalogue.attach(self.catalogue.find(name).ident, client)
        return self._told(entry, client, name)

    def put_name(self, client: str, name: str, ident: str, view: Any, overwrite: bool) -> dict[str, Any]:
        """Give an array another name."""
        if name in self.stored and not overwrite:
            raise ReferentExistsError(f"there is an array named {name!r} already; overwrite=True replaces it")
        self.catalogue.name(name, ident, view, overwrite=overwrite, now=time.monotonic())
        old = self.stored.pop(name, None)
        entry = self.catalogue.entry(ident)
        if old is not None:
            entry.version = max(entry.version, old["version"] + 1)
        return self._told(entry, client, name)

    def forget_name(self, name: str) -> None:
        """Take a name away."""
        if self.stored.pop(name, None) is None or name in self.catalogue.names:
            self.catalogue.forget(name, time.monotonic())

    def list_names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted({*self.catalogue.names, *self.stored})

    def attributes(self, ident: str, changes: dict[str, Any], removed: Any, mode: str) -> dict[str, Any]:
        """Read or change an array's attributes; return what they were before."""
        entry = self.catalogue.entry(ident)
        before = dict(entry.attributes)
        if mode == "replace":
            entry.attributes = dict(changes)
        elif mode == "add":
            entry.attributes = {**changes, **before}
        elif mode == "update":
            entry.attributes = {name: v for name, v in {**before, **changes}.items() if name not in removed}
        return before

    def pulse(self) -> dict[str, int]:
        """Tell how many workers there are, and how many tasks they have at this moment."""
        workers = self.scheduler.workers.values()
        return {"workers": len(workers), "busy": sum(len(worker.processing) for worker in workers)}

    def facts(self) -> dict[str, Any]:
        """Return the fields of `HostStatistics`, and the arrays for a listing."""
        counts = self.catalogue.count(lambda dtype: dtype_from_wire(dtype).itemsize)
        clients = [client for client in self.scheduler.clients if not client.startswith("arrayhost-")]
        return {
            "counts": {
                **counts, "pid": os.getpid(), "n_sessions": len(clients), "n_connections": len(clients),
                "n_slots": counts["n_arrays"], "n_requests": self.n_requests, "max_bytes": None,
                "started": self.started,
            },
            "arrays": [
                {"ident": entry.ident, "names": sorted(entry.names), "shape": entry.shape, "dtype": entry.dtype,
                 "chunks": [len(axis) for axis in entry.chunks], "version": entry.version}
                for entry in self.catalogue.arrays.values()
            ],
        }  # fmt: skip

    # -- what clients tell, in the order in which they tell it -------------------------------------------------------

    def detach(self, client: str, ident: str) -> None:
        """End a client's hold on an array."""
        self.catalogue.detach(ident, client, time.monotonic())

    def export(self, client: str, ident: str, seconds: float) -> None:
        """Let an array live for a while, because a proxy was pickled."""
        self.catalogue.export(ident, time.monotonic() + seconds)
