"""Sessions: this process's connections to one host, made when first needed, anew after a fork.

A session has one socket on which it tells the host of its leases, and one for each thread that makes requests. The
host knows from the first that the process lives; nothing is ever answered there, so that finalizers can write to it
without waiting.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Any, cast

import msgpack
import numpy as np

from arrayhost.client.links import Lease, MappedSource, Source
from arrayhost.core.handles import ObjectHandle
from arrayhost.errors import HostGoneError, ProtocolError, StaleProxyError
from arrayhost.memory.control import ROW_WORDS, ControlTable
from arrayhost.memory.segments import map_segment
from arrayhost.sync.filelocks import LockFiles
from arrayhost.sync.guards import Guard, held_here
from arrayhost.wire import failures
from arrayhost.wire.authentication import prove
from arrayhost.wire.codec import Codec, Encoder, unpack_handle
from arrayhost.wire.frames import Kind, pack_frame
from arrayhost.wire.streams import Message, UnixStream, close_all, connect_unix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Link
    from arrayhost.core.handles import ArrayHandle
    from arrayhost.evaluation.operations import Operation

__all__ = ["Session", "find_link", "forget_sessions", "register_link", "round_trips", "session_for"]

CONNECT_TIMEOUT = 10.0
_IDENTS = struct.Struct("<Q")
_DEFAULT_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
# Settings that name an object of the caller's cannot travel; their conditions come back as warnings.
_TRAVELLING = {"call": "warn", "print": "warn", "log": "warn"}

# Code in the host uses what another host owns through a proxy of its own; an evaluation is given its values.
_RUNNING_CODE = frozenset([Kind.CREATE, Kind.RUN, Kind.CALL])

_links: dict[bytes, Link] = {}
_by_address: dict[str, Session] = {}
_all_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_registry_lock = threading.Lock()
_n_round_trips = 0


def round_trips() -> int:
    """Requests that this process has sent and had answered so far."""
    return _n_round_trips


class _Connection:
    """One thread's connection."""

    def __init__(self, stream: UnixStream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.sequence = 0
        # A thread that ends drops its connection; the socket must not wait for the garbage collector.
        weakref.finalize(self, stream.close).atexit = False


class _Local(threading.local):
    connection: _Connection | None = None


class Session:
    """A process's link to one host.

    Parameters
    ----------
    address : str
    authkey : bytes, optional
        Presented to the host, which refuses a wrong one.

    Notes
    -----
    Safety: any thread; each has a connection of its own. A forked child connects anew on its first request; until
    then a pipe that it inherited keeps its leases.
    """

    def __init__(self, address: str, authkey: bytes | None = None) -> None:
        self.address = address
        self.host_id = b""
        self.lock_timeout = 60.0
        self.sources: weakref.WeakValueDictionary[int, Source] = weakref.WeakValueDictionary()
        self.leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        self.closed = False
        self._authkey = authkey
        self._ident = b""
        self._lock = threading.RLock()
        self._local = _Local()
        self._channel: socket.socket | None = None
        self._unsent: list[bytes] = []
        self._table: ControlTable | None = None
        self._files: LockFiles | None = None
        self._n_connections = 0
        self._fork_pipes: list[int] = []
        self._new_pipe = -1
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        _all_sessions.add(self)

    # -- connecting ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, if that has not been done in this process.

        Raises
        ------
        HostGoneError, NotAuthorizedError
        """
        with self._lock:
            if self._channel is not None:
                return
            if self.closed:
                raise HostGoneError(f"the host at {self.address} has ended; start another")
            ident = os.urandom(16)
            proof = prove(self._authkey, ident) if self._authkey is not None else b""
            stream, message = self._hello("session", ident, 0, proof)
            try:
                self._adopt(message)
            except BaseException:
                close_all(message.fds)
                stream.close()
                raise
            self._ident = ident
            self._channel = stream.socket
            if self.leases:
                self._claim_inherited()
        register_link(self)

    def _hello(self, role: str, ident: bytes, number: int, proof: bytes = b"") -> tuple[UnixStream, Message]:
        stream = UnixStream(connect_unix(self.address, CONNECT_TIMEOUT))
        try:
            stream.socket.settimeout(CONNECT_TIMEOUT)
            stream.send(Kind.HELLO, 0, msgpack.packb([role, ident, number, proof]))
            message = stream.receive()
            stream.socket.settimeout(None)
            if message is None:
                raise HostGoneError(f"the host at {self.address} hung up instead of answering; it may be overloaded")
            if message.kind == Kind.ERROR:
                raise failures.rebuild(msgpack.unpackb(message.body), allow_pickle=False)
        except BaseException:
            stream.close()
            raise
        return stream, message

    def _adopt(self, message: Message) -> None:
        """Take in what the host says of itself: who it is, its control table, its lock files."""
        (host_id, _, lock_timeout, n_slots), _ = msgpack.unpackb(message.body[1:])
        if self.host_id and self.host_id != host_id:
            raise HostGoneError(f"the host at {self.address} is another one now; arrays of the old one are gone")
        if self._table is None:
            self._table = ControlTable.open(message.fds[0], n_slots * ROW_WORDS * 8)
            self._files = LockFiles(message.fds[1:])
            os.close(message.fds[0])
        else:
            close_all(message.fds)
        self.host_id, self.lock_timeout = host_id, lock_timeout

    def _claim_inherited(self) -> None:
        """In a forked child: lease what the parent had, and let go of the pipe that kept it."""
        leases = {lease.ident: lease for lease in list(self.leases)}
        missing = set(self.request(Kind.CLAIM, sorted(leases)))
        for ident, lease in leases.items():
            # The pipe held it, so nothing can be missing unless the host itself ended it.
            lease.count[0] = 0 if ident in missing else 1
        self._close_fork_pipes()

    def _connection(self) -> _Connection:
        connection = self._local.connection
        if connection is None:
            with self._lock:
                self.open()
                connection = self._local.connection
                if connection is not None:
                    return connection
                self._n_connections += 1
                number = self._n_connections
            stream, _ = self._hello("calls", self._ident, number)
            connection = _Connection(stream, number)
            self._connections.add(connection)
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Hang up for good; mapped arrays stay readable."""
        self.closed = True
        self._disconnect()
        # Arrays that are still in use hold on to these themselves.
        self._table = self._files = None
        with _registry_lock:
            if _by_address.get(self.address) is self:
                del _by_address[self.address]
            if _links.get(self.host_id) is self:
                del _links[self.host_id]

    def retire_if_ended(self) -> bool:
        """Let go of what a host that has ended left here; tell whether it has."""
        channel = self._channel
        if channel is None:
            return self.closed
        try:
            # Nothing is ever sent on this socket after the hello: readable means that the other side is closed.
            ended = channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            ended = False
        except OSError:
            ended = True
        if ended:
            self.close()
        return ended

    def _disconnect(self) -> None:
        with self._lock:
            for connection in list(self._connections):
                connection.stream.close()
            self._local = _Local()
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._close_fork_pipes()

    # -- requests ------------------------------------------------------------------------------------------------

    def request(self, kind: Kind, value: Any, *, timeout: float | None = None) -> Any:
        """Send one request and wait for its answer.

        Parameters
        ----------
        kind : Kind
        value : object
            Its arguments.
        timeout : float, optional
            Seconds to wait; None waits as long as the host works on it.

        Raises
        ------
        HostGoneError
            The host has ended.
        ArgumentEncodingError
            `value` cannot be sent; nothing was.
        Exception
            Whatever the host answers with.
        """
        by_value = kind not in _RUNNING_CODE
        encoder = Encoder(lambda part: _reference(part, self, by_value=by_value), allow_pickle=True)
        return self._exchange(kind, encoder.encode(value), encoder.attachments, timeout=timeout)

    def _exchange(
        self,
        kind: Kind,
        body: bytes,
        attachments: Sequence[npt.NDArray[Any]] = (),
        *,
        timeout: float | None = None,
        resolve: Callable[[Any, dict[int, int]], Any] | None = None,
    ) -> Any:
        global _n_round_trips
        connection = self._connection()
        connection.sequence = sequence = connection.sequence + 1
        stream = connection.stream
        try:
            if timeout is not None:
                stream.socket.settimeout(timeout)
            stream.send(kind, sequence, body, attachments)
            message = stream.receive()
            if message is None:
                raise HostGoneError(f"the host at {self.address} has ended")
            if message.sequence != sequence:
                raise ProtocolError(f"the host answered request {message.sequence} instead of {sequence}")
            if timeout is not None:
                stream.socket.settimeout(None)
            _n_round_trips += 1
            if message.kind == Kind.DONE:
                return None
            return self._result(message, resolve or self._resolve)
        except BaseException as error:
            if not isinstance(error, Exception) or isinstance(error, (HostGoneError, ProtocolError, OSError)):
                # Interrupted or broken: a reply that still comes would be taken for the next one's.
                self._drop_connection(connection, sequence)
                if isinstance(error, HostGoneError):
                    self.retire_if_ended()
            raise

    def _drop_connection(self, connection: _Connection, sequence: int) -> None:
        if self._local.connection is connection:
            self._local.connection = None
        self._tell(Kind.ABANDON, [connection.number, sequence])
        connection.stream.close()

    def _result(self, message: Message, resolve: Callable[[Any, dict[int, int]], Any]) -> Any:
        body = message.body
        if message.kind == Kind.ERROR:
            codec = Codec(_no_proxies, message.attachments, allow_pickle=True)
            raise failures.rebuild(codec.decode(body), allow_pickle=True)
        if message.kind != Kind.RESULT:
            raise ProtocolError(f"a {Kind(message.kind).name} frame as an answer")
        try:
            n_segments = body[0]
            start = 1 + _IDENTS.size * n_segments
            idents = [ident for (ident,) in _IDENTS.iter_unpack(body[1:start])]
            segments = dict(zip(idents, message.fds[len(message.attachments) :], strict=True))
            codec = Codec(lambda handle: resolve(handle, segments), message.attachments, allow_pickle=True)
            value, warned = codec.decode(body[start:])
        finally:
            close_all(message.fds)
        for category, text in warned:
            failures.warn_caller(category, text)
        return value

    def _resolve(self, handle: bytes | ObjectHandle, segments: dict[int, int]) -> Any:
        """Make the proxy that a handle in a reply stands for; the reply granted a lease with it."""
        if isinstance(handle, ObjectHandle):
            return make_proxy(self, handle)
        array = unpack_handle(handle)
        source = self._find_source(array, segments) or self.attach(handle)
        source.count[0] += 1
        return make_proxy(source, array.layout)

    # -- arrays --------------------------------------------------------------------------------------------------

    def attach(self, packed: bytes) -> Source:
        """Map the array that a packed handle names, and lease it.

        Raises
        ------
        StaleProxyError
            It has been freed.

        Notes
        -----
        Cost: one round trip, and none if this process has the array mapped already.
        """
        array = unpack_handle(packed)
        self.open()
        source = self._find_source(array, {})
        if source is not None:
            return source

        def resolve(handle: bytes, segments: dict[int, int]) -> Source:
            found = self._find_source(array, segments)
            if found is None:
                raise ProtocolError(f"the host sent no segment for array {array.ident}")
            found.count[0] += 1
            return found

        return cast("Source", self._exchange(Kind.ATTACH, packed, resolve=resolve))

    def _find_source(self, array: ArrayHandle, segments: dict[int, int]) -> Source | None:
        """Return an array's mapping here, making it if its segment has just come."""
        with self._lock:
            source = self.sources.get(array.ident)
            if source is None and array.ident in segments:
                assert self._table is not None
                assert self._files is not None
                guard = Guard(self._table, self._files, array.slot, array.generation)
                guard.check_current()
                mapping = map_segment(segments[array.ident], array.segment_bytes)
                source = MappedSource(self, array.ident, guard, mapping)
                self.sources[array.ident] = source
                self.leases.add(source)
            return source

    def context(self) -> dict[str, Any] | None:
        """What the host has to know of the caller: the slots it holds, its floating-point settings; None if nothing."""
        settings = np.geterr()
        held = [hold for hold in held_here() if hold.guard.table is self._table]
        if not held and settings == _DEFAULT_ERRORS:
            return None
        return {
            "held": [[hold.guard.slot, hold.mode] for hold in held],
            "errstate": {kind: _TRAVELLING.get(str(how), how) for kind, how in settings.items()},
        }

    # -- the link ------------------------------------------------------------------------------------------------

    def evaluate(self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate an operation in the host. Cost: one round trip."""
        return self.request(Kind.EVALUATE, [*operation, list(args), dict(kwargs), self.context()])

    def set_item(self, target: Any, index: Any, value: Any) -> None:
        """Carry out ``target[index] = value`` in the host. Cost: one round trip."""
        self.request(Kind.SET_ITEM, [target, index, value, self.context()])

    def snapshot(self, target: Any) -> npt.NDArray[Any]:
        """Have the host copy an array under its lock. Cost: one round trip."""
        return cast("npt.NDArray[Any]", self.request(Kind.SNAPSHOT, [target, self.context()]))

    def call(self, handle: ObjectHandle, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of a hosted object. Cost: one round trip."""
        return self.request(Kind.CALL, [handle.ident, name, list(args), dict(kwargs), self.context()])

    def attach_object(self, handle: ObjectHandle) -> Lease:
        """Lease a hosted object that a pickled handle names. Cost: one round trip.

        Raises
        ------
        StaleProxyError
            It has been freed.
        """
        if self.request(Kind.CLAIM, [handle.ident]):
            raise StaleProxyError(
                f"object {handle.ident} ({handle.typeid}) is not hosted any more: its last lease and the grace of its "
                "handles ended"
            )
        return self.lease_object(handle)

    def lease_object(self, handle: ObjectHandle) -> Lease:
        """Count a lease that the host has granted with a handle."""
        lease = Lease(self, handle.ident)
        lease.count[0] = 1
        self.leases.add(lease)
        return lease

    def export(self, ident: int) -> None:
        """Tell the host that a handle of the referent is being pickled. Cost: one message, no answer awaited."""
        self.open()
        self._tell(Kind.EXPORT, [ident])

    def released(self, ident: int, count: int) -> None:
        """Give leases back. Called by finalizers: one non-blocking send, no lock."""
        self._tell(Kind.RELEASE, [[ident, count]])

    def _tell(self, kind: Kind, body: Any) -> None:
        """Send on the lease channel without waiting; what does not fit goes with the next message."""
        channel = self._channel
        if channel is None:
            return
        self._unsent.append(pack_frame(kind, 0, msgpack.packb(body)))
        with contextlib.suppress(OSError):  # full: kept for later; broken: the host has dropped all leases anyway
            while self._unsent:
                frame = self._unsent.pop(0)
                try:
                    # Far below the size up to which a socket takes a message whole or not at all.
                    channel.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    self._unsent.insert(0, frame)
                    raise

    # -- fork ----------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Have the host keep all leases for the child until its end of a new pipe closes."""
        self._new_pipe = -1
        channel = self._channel
        if channel is None or not self.leases:
            return
        reader, self._new_pipe = os.pipe2(os.O_CLOEXEC)
        try:
            frame = pack_frame(Kind.FORK_GUARD, 0, msgpack.packb(None), 1)
            select.select([], [channel], [], 1.0)
            socket.send_fds(channel, [frame], [reader], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the host is gone: nothing to keep
        finally:
            os.close(reader)

    def after_fork_in_parent(self) -> None:
        """Leave the pipe to the child."""
        if self._new_pipe >= 0:
            os.close(self._new_pipe)
            self._new_pipe = -1

    def after_fork_in_child(self) -> None:
        """Let go of the parent's sockets, or its death would go unnoticed; connect anew on the first request."""
        self._lock = threading.RLock()
        self._unsent = []
        if self._new_pipe >= 0:
            self._fork_pipes.append(self._new_pipe)
            self._new_pipe = -1
        pipes, self._fork_pipes = self._fork_pipes, []
        self._disconnect()
        self._fork_pipes = pipes
        for lease in list(self.leases):
            lease.count[0] = 0
            lease.exported = False

    def _close_fork_pipes(self) -> None:
        pipes, self._fork_pipes = self._fork_pipes, []
        for pipe in pipes:
            os.close(pipe)


# -- sessions of this process -------------------------------------------------------------------------------------


def session_for(address: str, authkey: bytes | None = None) -> Session:
    """Return this process's open session with the host at an address.

    Raises
    ------
    HostGoneError, NotAuthorizedError
    """
    with _registry_lock:
        known_sessions = list(_by_address.values())
    for other in known_sessions:
        other.retire_if_ended()
    with _registry_lock:
        session = _by_address.get(address)
    if session is None or (authkey is not None and session._authkey != authkey):
        session = Session(address, authkey)
        session.open()
        with _registry_lock:
            known = _links.get(session.host_id)
            if isinstance(known, Session) and not known.closed and known is not session:
                # The same host was reached before. Two sessions would map its arrays twice.
                session.closed = True
                session._disconnect()
                session = known
            _by_address[address] = session
            _links[session.host_id] = session
    session.open()
    return session


def register_link(link: Link) -> None:
    """Let pickled handles of a host find their way by this link."""
    with _registry_lock:
        _links.setdefault(link.host_id, link)


def find_link(address: str, host_id: bytes) -> Link:
    """Return this process's link to the host that a handle names.

    Raises
    ------
    HostGoneError
        That host has ended, even if another listens at its address.
    """
    link = _links.get(host_id)
    if link is not None and not getattr(link, "closed", False):
        return link
    session = session_for(address)
    if session.host_id != host_id:
        raise HostGoneError(f"the host at {address} is another one now; arrays of the old one are gone")
    return session


def forget_sessions() -> None:
    """Drop every session: in a new host, whose parent's arrays are none of its business."""
    for session in list(_all_sessions):
        session.close()
    with _registry_lock:
        _links.clear()
        _by_address.clear()


def _before_fork() -> None:
    _registry_lock.acquire()
    for session in list(_all_sessions):
        session.before_fork()


def _after_fork_in_parent() -> None:
    for session in list(_all_sessions):
        session.after_fork_in_parent()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    for session in list(_all_sessions):
        session.after_fork_in_child()
    _registry_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


# -- proxies, which are made in modules above this one --------------------------------------------------------------


def _no_proxies(*_: Any) -> Any:
    raise ProtocolError("a handle where none was due")


_proxy_makers: dict[type, Callable[[Any, Any], Any]] = {}
_references: dict[type, Callable[..., Any]] = {}


def register_proxies(
    handle_type: type, make: Callable[[Any, Any], Any], proxy_type: type, refer: Callable[..., Any]
) -> None:
    """Tell how proxies of one kind are made from handles, and what stands for them on the wire."""
    _proxy_makers[handle_type] = make
    _references[proxy_type] = refer


def make_proxy(origin: Any, what: Any) -> Any:
    """Make the proxy for a layout in a source, or for an object's handle."""
    return _proxy_makers[type(what)](origin, what)


def _reference(value: Any, link: Link, *, by_value: bool) -> Any:
    for kind in type(value).__mro__:
        refer = _references.get(kind)
        if refer is not None:
            return refer(value, link, by_value=by_value)
    return None
