"""Host and client in one process: the link by which a host's own code uses what it hosts, and the host's start.

A registered function or class runs inside the host and is given the same proxies as everybody else; theirs go straight
to the service, without a socket.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from arrayhost.client.array import HostedArray
from arrayhost.client.finding import forget_sessions, take_over
from arrayhost.client.links import Lease, MappedSource, Source
from arrayhost.client.mapped import proxy_of
from arrayhost.client.object import HostedObject, bind
from arrayhost.client.registry import register_link
from arrayhost.client.ways import UnixWay
from arrayhost.errors import NoHostError, StaleProxyError
from arrayhost.evaluation.operands import map_nested
from arrayhost.host.disk import Directory
from arrayhost.host.server import Server
from arrayhost.host.service import LOCAL_HOLDER, Service
from arrayhost.host.store import ObjectReferent, Operand, Store
from arrayhost.host.undo import UNDO_BYTES
from arrayhost.memory._libc import keep_heap_small
from arrayhost.memory.descriptors import descriptor_limit, raise_soft_limit
from arrayhost.wire.codec import unpack_handle
from arrayhost.wire.hello import READ_WRITE
from arrayhost.wire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from multiprocessing.connection import Connection

    import numpy.typing as npt

    from arrayhost.core.handles import ArrayHandle, ObjectHandle
    from arrayhost.evaluation.operations import Operation
    from arrayhost.host.objects import Registration

__all__ = ["HostOptions", "LocalLink", "build_server", "current_link", "run_host"]


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How a host is to behave.

    Attributes
    ----------
    address : str
        ``unix:/path`` or ``unix:@name``.
    authkey : bytes
    needs_key : bool
        Whether this user's processes on this machine have to present it; those that come over TCP always have to.
    huge_pages : bool
    handle_grace : float
        Seconds that a pickled handle outlives the last lease.
    lock_timeout : float
        Seconds that anybody waits for a lock unless told otherwise.
    max_bytes : int or None
        Bound on all arrays together.
    directory : str or None
        Where named arrays are files.
    undo_bytes : int
        Writes to these that may touch no more are undone if the host is killed in their middle; 0 for none.
    limits : Limits
        What its peers are allowed.
    trust_peers : bool
        Whether pickles are read from this user's processes on this machine.
    listen : tuple of str
        TCP ports to listen on besides: ``tcp://host:port``.
    tls : None, SSLContext or tuple of path
        The certificate and key for these, and perhaps the authorities of the clients' certificates.
    insecure : bool
        Listen on other addresses than loopback also without TLS.
    """

    address: str
    authkey: bytes
    needs_key: bool = False
    huge_pages: bool = True
    handle_grace: float = 60.0
    lock_timeout: float = 60.0
    max_bytes: int | None = None
    directory: str | None = None
    undo_bytes: int = UNDO_BYTES
    limits: Limits = DEFAULT_LIMITS
    trust_peers: bool = True
    listen: tuple[str, ...] = ()
    tls: Any = None
    insecure: bool = False


class LocalLink:
    """A `Link` to the host that runs in this very process; also its `ProxyFactory`."""

    def __init__(self) -> None:
        self.address = ""
        self.elsewhere: tuple[str, ...] = ()
        self.is_remote = False
        self.host_id = b""
        self.mode = READ_WRITE
        self.credentials: tuple[bytes | None, Any] = (None, None)
        self.closed = False
        self._service: Service | None = None
        self._sources: weakref.WeakValueDictionary[int, Source] = weakref.WeakValueDictionary()
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._lock = threading.RLock()

    def serve_for(self, server: Server) -> None:
        """Become the way to this server for proxies in its process."""
        self._service = server.service
        self.address, self.host_id, self.elsewhere = server.address, server.host_id, server.advertised
        self.credentials = (server.key_to_give, None)

    @property
    def service(self) -> Service:
        """The service behind it."""
        if self._service is None:
            raise NoHostError("this host is not serving yet")
        return self._service

    def after_fork_in_child(self) -> None:
        """Hand everything over to a session with the host, which the child is not.

        Its copy of the store looks alive, and using that would write over rows of the real one.
        """
        service, self._service = self._service, None
        self.closed = True
        if service is not None:
            store = service.store
            way = UnixWay(self.address, self.credentials[0])
            take_over(way, self.host_id, store.table, store.files, list(self._leases))

    @property
    def lock_timeout(self) -> float:
        """Seconds that a lock is waited for by default."""
        return self.service.lock_timeout

    # -- proxies ---------------------------------------------------------------------------------------------------

    def proxy(self, referent: Operand | ObjectReferent) -> Any:
        """Make a proxy for use inside the host, with a lease of its own."""
        store = self.service.store
        if isinstance(referent, ObjectReferent):
            store.grant(referent.ident, LOCAL_HOLDER)
            return bind(self._lease_object(referent.handle), referent.handle)
        array = referent.referent
        with self._lock:
            source = self._sources.get(array.ident)
            if source is None:
                store.grant(array.ident, LOCAL_HOLDER)
                source = MappedSource(self, array.handle(array.layout), array.guard, array.place.segment.mapping)
                source.count[0] = 1
                self._sources[array.ident] = source
        return proxy_of(source, referent.layout)

    def referent(self, value: Any) -> Operand | ObjectReferent | None:
        """Return what a proxy of this host stands for; None for anything else."""
        if isinstance(value, HostedArray) and value._source.link is self:
            return self.service.store.find_array(value._source.handle_for(value.layout))
        if isinstance(value, HostedObject) and value._arrayhost_lease.link is self:
            return self.service.store.find_object(value._arrayhost_handle.ident)
        return None

    def create(self, typeid: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Create something hosted, from inside the host."""
        making: Hashable = object()
        try:
            return self.proxy(self.service.create(typeid, args, kwargs, making))
        finally:
            self.service.store.drop_holder(making)

    # -- the link --------------------------------------------------------------------------------------------------

    def evaluate(self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate an operation. Cost: a function call."""
        real_args = [map_nested(arg, self._operand) for arg in args]
        real_kwargs = {key: map_nested(arg, self._operand) for key, arg in kwargs.items()}
        result = self.service.evaluate(operation, real_args, real_kwargs)
        return map_nested(result, lambda leaf: self.proxy(leaf) if isinstance(leaf, Operand) else leaf)

    def _operand(self, leaf: Any) -> Any:
        if isinstance(leaf, HostedArray):
            # A proxy of another host is used for its values.
            return self.referent(leaf) or leaf.copy("K")
        return leaf

    def apply(self, target: Any, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float) -> Any:
        """Call a function with a copy of an array, and write that back."""
        return self.service.apply(self._operand(target), function, args, kwargs, timeout)

    def set_item(self, target: Any, index: Any, value: Any) -> None:
        """Carry out ``target[index] = value``."""
        self.service.set_item(self._operand(target), map_nested(index, self._operand), map_nested(value, self._operand))

    def snapshot(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Copy views of one array under one hold of its lock."""
        operands = [self._operand(view) for view in views]
        return cast("list[npt.NDArray[Any]]", operands[0].locked_copies(operands))

    def call(self, handle: ObjectHandle, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of a hosted object."""
        making: Hashable = object()
        try:
            result = self.service.call(handle.ident, name, args, dict(kwargs), making)
            return self.proxy(result) if isinstance(result, (Operand, ObjectReferent)) else result
        finally:
            self.service.store.drop_holder(making)

    def attributes(
        self, handle: ArrayHandle, changes: Mapping[str, Any], removed: Sequence[str], mode: str
    ) -> dict[str, Any]:
        """Read or change an array's attributes."""
        operand = self.service.store.find_array(handle)
        return self.service.attributes(operand, changes, removed, mode)

    def seems_ended(self) -> bool:
        """The host is this process."""
        return False

    def attach(self, packed: bytes) -> Source:
        """Find an array that was named by a pickled handle."""
        proxy = self.proxy(self.service.store.find_array(unpack_handle(packed)))
        return cast("Source", proxy._source)

    def attach_object(self, handle: ObjectHandle) -> Lease:
        """Lease an object that was named by a pickled handle."""
        self.service.store.find_object(handle.ident)
        self.service.store.grant(handle.ident, LOCAL_HOLDER)
        return self._lease_object(handle)

    def _lease_object(self, handle: ObjectHandle) -> Lease:
        """Count a lease that has been granted."""
        lease = Lease(self, handle.ident)
        lease.count[0] = 1
        return lease

    def export(self, ident: int) -> None:
        """Note that a handle is being pickled."""
        store = self.service.store
        with store.lock:
            store.leases.export(ident, time.monotonic())

    def watch(self, lease: Lease) -> None:
        """Give back what `lease` counts when it dies."""
        self._leases.add(lease)
        weakref.finalize(lease, self._released, lease.ident, lease.count).atexit = False

    def _released(self, ident: int, count: list[int]) -> None:
        if self._service is not None and count[0]:
            self._service.release_soon(ident, count[0])


_current: LocalLink | None = None


def current_link() -> LocalLink:
    """The link to the host that runs in this process.

    Raises
    ------
    NoHostError
    """
    if _current is None:
        raise NoHostError(
            "arrayhost.ones() and the like make arrays inside a host, and this process is none; "
            "use a manager: manager.ones(...), or a function that the manager runs: manager.run(func)"
        )
    return _current


@descriptor_limit("a new host")
def build_server(registry: Mapping[str, Registration], options: HostOptions, parent_pidfd: int | None = None) -> Server:
    """Make the server of a new host in this process; it listens from here on.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """
    global _current
    link = LocalLink()
    disk = None if options.directory is None else Directory(options.directory, options.undo_bytes)
    store = Store(
        options.handle_grace, options.max_bytes, options.lock_timeout, huge_pages=options.huge_pages, disk=disk
    )
    service = Service(store, registry, link, lock_timeout=options.lock_timeout)
    try:
        service.load()
        server = Server(
            service,
            options.address,
            options.authkey,
            needs_key=options.needs_key,
            parent_pidfd=parent_pidfd,
            limits=options.limits,
            trust_peers=options.trust_peers,
        )
    except BaseException:
        store.close()
        raise
    try:
        for address in options.listen:
            server.listen(address, options.tls, insecure=options.insecure)
    except BaseException:
        server.close()
        raise
    link.serve_for(server)
    register_link(link)
    _current = link
    return server


def run_host(
    registry: Mapping[str, Registration],
    options: HostOptions,
    answer: Connection,
    parent: tuple[int, str],
    initializer: Callable[..., Any] | None,
    initargs: Sequence[Any],
) -> None:
    """Be a host: the main function of the process that a manager starts.

    Parameters
    ----------
    answer : Connection
        Told the address and those of the TCP ports, or what went wrong.
    parent : (int, str)
        The starting process and when it began: the host ends with it.
    """
    raise_soft_limit()
    keep_heap_small()
    # Ctrl-C in a terminal reaches the whole process group; the host ends when its manager says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    forget_sessions()
    try:
        pidfd = _watch(*parent)
        if initializer is not None:
            initializer(*initargs)
        server = build_server(registry, options, pidfd)
    except BaseException as error:
        answer.send(error)
        answer.close()
        raise SystemExit(1) from error
    answer.send((server.address, server.network_addresses))
    answer.close()
    server.serve_forever()


def _after_fork_in_child() -> None:
    global _current
    if _current is not None:
        _current.after_fork_in_child()
        _current = None


os.register_at_fork(after_in_child=_after_fork_in_child)


def process_began(pid: int) -> str:
    """When a process was started, in the kernel's ticks; distinguishes it from a later one with the same id."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _watch(pid: int, began: str) -> int:
    """Return a descriptor that becomes readable when a process ends."""
    pidfd = os.pidfd_open(pid)
    if process_began(pid) != began:
        os.close(pidfd)
        raise StaleProxyError("the process that started this host has ended already")
    return pidfd
