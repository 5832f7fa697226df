"""Sessions: this process's connections to one host, made when first needed, anew after a fork.

A session has one socket on which it tells the host of its leases, and one for each thread that makes requests. The
host knows from the first that the process lives; nothing is ever answered there, so that finalizers can write to it
without waiting.

An interrupt, or a signal handler that makes requests of its own, may strike at any instruction. A connection is
therefore taken out while it is used, and put back only after a whole exchange: whatever went wrong in between, no later
request finds it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, cast

import msgpack
import numpy as np

from arrayhost.client import registry
from arrayhost.client.conditions import TRAVELLING, report
from arrayhost.client.functions import sendable
from arrayhost.client.links import Lease, MappedSource, Source
from arrayhost.client.proxies import is_proxy, make_proxy, no_proxies, reference
from arrayhost.client.remote import RemoteGuard, RemoteSource
from arrayhost.client.telling import LeaseChannel
from arrayhost.client.ways import NetworkWay, UnixWay, remember_way
from arrayhost.core.handles import ObjectHandle
from arrayhost.errors import (
    ArgumentEncodingError,
    HostGoneError,
    ProtocolError,
    ReadOnlyError,
    StaleProxyError,
    UnsupportedError,
)
from arrayhost.evaluation.permitted import check_call_reads_only, check_evaluation_reads_only, check_reads_only
from arrayhost.memory.control import ROW_WORDS, ControlTable
from arrayhost.memory.segments import map_segment
from arrayhost.sync.filelocks import LockFiles
from arrayhost.sync.guards import Guard, held_here
from arrayhost.sync.readonly import ReadOnlyGuard
from arrayhost.wire import failures
from arrayhost.wire.codec import MAX_REQUEST_BYTES, MAX_VALUE_BYTES, Codec, Encoder, unpack_handle
from arrayhost.wire.frames import Kind
from arrayhost.wire.hello import CALLS, READ_ONLY, READ_WRITE, SESSION, Hello, pack_hello
from arrayhost.wire.streams import Message, close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.client.ways import Stream
    from arrayhost.core.handles import ArrayHandle
    from arrayhost.evaluation.operations import Operation
    from arrayhost.memory.segments import Mapping as SegmentMapping

__all__ = ["Session", "round_trips"]

_LOOK_SECONDS = 0.05
# Connections for locks that are kept for the next ones.
_MOST_SPARE = 8
# Seconds to look for an answer before sleeping for it; those to small requests take a few microseconds.
_PATIENCE = 50e-6
_IDENTS = struct.Struct("<Q")
_NUMBERS = frozenset([int, float, bool])
# After these a reply that still comes could be taken for the next one's.
_BREAKING = (HostGoneError, ProtocolError, OSError)
_DEFAULT_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}

# Code in the host uses what another host owns through a proxy of its own; an evaluation is given its values.
_RUNNING_CODE = frozenset([Kind.CREATE, Kind.RUN, Kind.CALL, Kind.APPLY])

_n_round_trips = 0


def round_trips() -> int:
    """Requests that this process has sent and had answered so far."""
    return _n_round_trips


class _Connection:
    """One thread's connection."""

    def __init__(self, stream: Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.sequence = 0
        self.broken = False
        # A thread that ends drops its connection; the socket must not wait for the garbage collector.
        weakref.finalize(self, stream.close).atexit = False


class _Local(threading.local):
    connection: _Connection | None = None


def _confirmed(streamed: Message, confirmation: Message | None) -> Message:
    """The answer of a host that has sent memory as it was: that, if it held still meanwhile, else what came after."""
    if confirmation is None:
        raise HostGoneError("the host ended before it confirmed what it had sent")
    if confirmation.sequence == streamed.sequence and confirmation.kind == Kind.DONE:
        return streamed._replace(kind=Kind.RESULT)
    return confirmation


def _count(lease: Lease, counted: list[int]) -> None:
    """Count a lease that an answer granted, and note that it was. No interrupt can come between the two."""
    lease.count[0] += 1
    counted.append(lease.ident)


class Session:
    """A process's link to one host.

    Parameters
    ----------
    way : UnixWay or NetworkWay
        How it is reached. Over the network nothing is mapped, and nothing is pickled in either direction.
    mode : str
        ``"r+"``, or ``"r"``: memory is mapped without the right to write, and the host refuses every change.

    Notes
    -----
    Safety: any thread; each has a connection of its own. A forked child connects anew on its first request; until
    then a pipe that it inherited keeps its leases.
    """

    def __init__(self, way: UnixWay | NetworkWay, mode: str = READ_WRITE) -> None:
        self.way = way
        self.address = way.address
        self.is_remote = isinstance(way, NetworkWay)
        self.mode = mode
        self.read_only = mode == READ_ONLY
        self._guard_type = ReadOnlyGuard if self.read_only else Guard
        self.host_id = b""
        self.elsewhere: tuple[str, ...] = ()
        self.lock_timeout = 60.0
        self.sources: weakref.WeakValueDictionary[int, Source] = weakref.WeakValueDictionary()
        self._segments: weakref.WeakValueDictionary[int, SegmentMapping] = weakref.WeakValueDictionary()
        # The segment of the newest small array: whoever makes and drops one after the other maps it only once.
        self._latest_shared: SegmentMapping | None = None
        self.closed = False
        self._host_unpickles = not self.is_remote
        self._ident = b""
        self._lock = threading.RLock()
        self._local = _Local()
        self._channel = LeaseChannel()
        self._spare: list[_Connection] = []  # that hold no lock at the moment
        self._table: ControlTable | None = None
        self._files: LockFiles | None = None
        self._n_connections = 0
        self._welcomed: Source | None = None
        self._looked = 0.0
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        registry.sessions.add(self)

    # -- connecting ----------------------------------------------------------------------------------------------

    def open(self, wanted: bytes = b"") -> None:
        """Connect, if that has not been done in this process.

        Parameters
        ----------
        wanted : bytes
            The packed handle of an array that the host is to send along with its first answer; `attach` then finds
            it here without another round trip.

        Raises
        ------
        HostGoneError, NotAuthorizedError
        """
        with self._lock:
            if self._channel.stream is not None:
                return
            if self.closed:
                gone = HostGoneError(f"the host at {self.address} has ended; start another")
                gone.nothing_sent = True
                raise gone
            inherited = bool(self._channel.leases())
            if inherited or self.is_remote:
                wanted = b""  # among what is claimed, or asked for afterwards
            ident = os.urandom(16)
            proof, given = self.way.proof(ident)
            stream, message = self._hello(Hello(SESSION, ident, 0, proof, self.mode, wanted, given))
            remember_way(self.way)
            try:
                self._adopt(message)
                self._welcome(message, wanted)
            except BaseException:
                stream.close()
                raise
            finally:
                close_all(message.fds)
            self._ident = ident
            self._channel.stream = stream
            if inherited:
                self._claim_inherited()
        registry.register_link(self)

    def _hello(self, hello: Hello) -> tuple[Stream, Message]:
        stream = self.way.connect()
        try:
            stream.socket.settimeout(self.way.timeout)
            with contextlib.suppress(HostGoneError):  # a host that lets nobody in has hung up, but said why
                stream.send(Kind.HELLO, 0, pack_hello(hello))
            message = stream.receive()
            stream.socket.settimeout(None)
            if message is None:
                raise HostGoneError(f"the host at {self.address} hung up instead of answering; it may be overloaded")
            if message.failure is not None:
                raise message.failure
            if message.kind == Kind.ERROR:
                raise failures.rebuild(msgpack.unpackb(message.body), allow_pickle=False)
        except BaseException:
            stream.close()
            raise
        return stream, message

    def _adopt(self, message: Message) -> None:
        """Take in what the host says of itself: who it is, its control table, its lock files."""
        host_id, lock_timeout, n_slots, n_files, unpickles, elsewhere, _ = msgpack.unpackb(message.body)
        if self.host_id and self.host_id != host_id:
            raise HostGoneError(f"the host at {self.address} is another one now; arrays of the old one are gone")
        if self._table is None and self.is_remote:
            self._table = ControlTable.private(n_slots)
        elif self._table is None:
            writeable = not self.read_only
            self._table = ControlTable.open(message.fds[0], n_slots * ROW_WORDS * 8, writeable=writeable)
            self._files = LockFiles(message.fds[1 : 1 + n_files], writeable=writeable)
            del message.fds[1 : 1 + n_files]
        self.host_id, self.lock_timeout, self._host_unpickles, self.elsewhere = (
            host_id, lock_timeout, bool(unpickles) and not self.is_remote, tuple(elsewhere),
        )  # fmt: skip

    def _welcome(self, message: Message, wanted: bytes) -> None:
        """Map the array that was asked for with the hello; the host has leased it and sent its segment last."""
        packed = msgpack.unpackb(message.body)[-1] if wanted else b""
        if packed:
            array = unpack_handle(packed)
            segments = self._map_segments(_IDENTS.pack(array.segment), message.fds[-1:])
            source = self._leased_source(array)
            del segments
            if source is not None:
                source.count[0] += 1
            # Held until `attach` asks for it, which is next.
            self._welcomed = source

    def _claim_inherited(self) -> None:
        """In a forked child: lease what the parent had, and let go of the pipe that kept it."""
        leases = self._channel.leases()
        missing = set(self.request(Kind.CLAIM, [lease.ident for lease in leases]))
        for lease in leases:
            # The pipe held it, so nothing can be missing unless the host itself ended it.
            lease.count[0] = 0 if lease.ident in missing else 1
        self._channel.close_fork_pipes()

    def _connect(self) -> _Connection:
        """Make a connection for the calling thread."""
        with self._lock:
            self._n_connections += 1
            number = self._n_connections
        stream, _ = self._hello(Hello(CALLS, self._ident, number))
        connection = _Connection(stream, number)
        self._connections.add(connection)
        return connection

    def inherit(self, host_id: bytes, table: ControlTable, files: LockFiles, leases: Sequence[Lease]) -> None:
        """Take over what a host had before this process was forked from it: table, lock files, its own proxies."""
        self.host_id, self._table, self._files = host_id, table, files
        for lease in leases:
            lease.link, lease.count, lease.exported = self, [0], False
            self.watch(lease)
            if isinstance(lease, MappedSource):
                self.sources[lease.ident] = lease

    def close(self) -> None:
        """Hang up for good; mapped arrays stay readable."""
        self.closed = True
        self.disconnect()
        # Arrays that are still in use hold on to these themselves.
        self._table = self._files = self._latest_shared = None
        registry.forget(self)

    def retire_if_ended(self) -> bool:
        """Let go of what a host that has ended left here; tell whether it has."""
        if self._channel.stream is None:
            return self.closed
        ended = self._channel.has_ended()
        if ended:
            self.close()
        return ended

    def seems_ended(self) -> bool:
        """Whether the host has ended, looked at every 50 ms at most."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return self.closed
        self._looked = now
        return self.retire_if_ended()

    @property
    def credentials(self) -> tuple[bytes | None, Any]:
        """The key, and the certificates' files, with which the host was reached."""
        return self.way.credentials

    def disconnect(self) -> None:
        """Hang up; the next request connects anew."""
        with self._lock:
            self._hang_up()
            self._channel.close()

    def _hang_up(self) -> None:
        for connection in list(self._connections):
            connection.stream.close()
        self._local = _Local()
        self._spare.clear()

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
        if self.read_only:
            check_reads_only(kind)
        if self.is_remote and kind in (Kind.RUN, Kind.APPLY):
            raise UnsupportedError(
                f"functions do not travel over the network to {self.address}: register it with the host's manager and "
                "call it by its name, or use the host's Unix socket"
            )
        by_value = kind not in _RUNNING_CODE
        encoder = self._encoder(by_value=by_value)
        try:
            body = encoder.encode(value)
        except ArgumentEncodingError as error:
            error.nothing_sent = True
            raise
        return self._exchange(kind, body, encoder.attachments, timeout=timeout)

    def _encoder(self, *, by_value: bool) -> Encoder:
        trusted = self._host_unpickles
        return Encoder(
            lambda part: reference(part, self, by_value=by_value),
            allow_pickle=trusted,
            max_bytes=MAX_VALUE_BYTES if trusted else MAX_REQUEST_BYTES,
        )

    def _exchange(
        self,
        kind: Kind,
        body: bytes,
        attachments: Sequence[npt.NDArray[Any]] = (),
        *,
        timeout: float | None = None,
        resolve: Callable[[Any, list[int]], Any] | None = None,
    ) -> Any:
        local = self._local
        if local.connection is None:
            self.open()
            local = self._local
        if self._channel.outbox:
            self._channel.send_outbox()  # what there was no room for, after many arrays were dropped at once
        try:
            connection = local.connection or self._connect()
        except HostGoneError as error:
            error.nothing_sent = True
            raise
        local.connection = None
        try:
            return self._exchange_on(connection, kind, body, attachments, timeout=timeout, resolve=resolve)
        finally:
            if not connection.broken:
                local.connection = connection

    def _exchange_on(
        self,
        connection: _Connection,
        kind: Kind,
        body: bytes,
        attachments: Sequence[npt.NDArray[Any]] = (),
        *,
        timeout: float | None = None,
        resolve: Callable[[Any, list[int]], Any] | None = None,
    ) -> Any:
        """Carry one exchange out; the connection is broken, and closed, unless it was a whole one."""
        global _n_round_trips
        connection.broken = True
        connection.sequence = sequence = connection.sequence + 1
        stream = connection.stream
        counted: list[int] = []
        message: Message | None = None
        try:
            if timeout is not None:
                stream.socket.settimeout(timeout)
            try:
                stream.send(kind, sequence, body, attachments)
            except HostGoneError as error:
                error.nothing_sent = True  # a message that is not complete is never carried out
                raise
            message = stream.receive(_PATIENCE if timeout is None else 0.0)
            if message is None:
                raise HostGoneError(f"the host at {self.address} has ended")
            if message.kind == Kind.STREAMED:
                message = _confirmed(message, stream.receive())
            if message.sequence != sequence:
                raise ProtocolError(f"the host answered request {message.sequence} instead of {sequence}")
            if timeout is not None:
                stream.socket.settimeout(None)
            _n_round_trips += 1
            if message.failure is not None:
                raise message.failure
            result = (
                None
                if message.kind == Kind.DONE
                else self._result(message, resolve or self._resolve, counted, trusted=stream.trusted)
            )
        except BaseException as error:
            if message is not None:
                close_all(message.fds)
            is_error = message is not None and message.sequence == sequence and message.kind == Kind.ERROR
            is_lost = message is not None and message.failure is not None  # with leases that were not counted
            if isinstance(error, Exception) and not is_lost and (is_error or not isinstance(error, _BREAKING)):
                connection.broken = False  # an answer like any other
            else:
                self._abandon(connection, sequence, counted)
                if isinstance(error, HostGoneError):
                    self.retire_if_ended()
            raise
        connection.broken = False
        return result

    # -- locks that the host holds for a remote process ----------------------------------------------------------

    def lock_connection(self) -> _Connection:
        """Take out a connection that will hold a lock: only requests of that lock's holder go over it."""
        self.open()
        try:
            return self._spare.pop()
        except IndexError:
            return self._connect()

    def request_on(self, connection: _Connection, kind: Kind, value: Any) -> Any:
        """Send a request over a connection that holds a lock, or is to; see `request`.

        Raises
        ------
        HostGoneError
            The connection was lost, and the lock with it.
        """
        encoder = self._encoder(by_value=True)
        body = encoder.encode(value)
        if connection.broken:
            raise HostGoneError(f"the connection with {self.address} that held the lock was lost")
        return self._exchange_on(connection, kind, body, encoder.attachments)

    def spare_connection(self, connection: _Connection) -> None:
        """Give back a connection that holds no lock any more."""
        if connection.broken:
            return
        if len(self._spare) < _MOST_SPARE:
            self._spare.append(connection)
        else:
            connection.stream.close()

    def _abandon(self, connection: _Connection, sequence: int, counted: list[int]) -> None:
        """Give an exchange up: the host takes back what its answer granted and was not counted here."""
        connection.stream.close()
        self._channel.tell(Kind.ABANDON, [connection.number, sequence, counted])

    def _result(
        self,
        message: Message,
        resolve: Callable[[Any, list[int]], Any],
        counted: list[int],
        *,
        trusted: bool,
    ) -> Any:
        body = message.body
        try:
            if message.kind == Kind.ERROR:
                codec = Codec(no_proxies, message.attachments, allow_pickle=trusted)
                described, warned = codec.decode(body)
                report(warned)
                raise failures.rebuild(described, allow_pickle=trusted)
            if message.kind != Kind.RESULT:
                raise ProtocolError(f"a {Kind(message.kind).name} frame as an answer")
            start = 1 + _IDENTS.size * body[0]
            # Kept here until the handles that need them have been decoded.
            segments = self._map_segments(body[1:start], message.fds[len(message.attachments) :])
            codec = Codec(lambda handle: resolve(handle, counted), message.attachments, allow_pickle=trusted)
            value, warned = codec.decode(body[start:])
            del segments
        finally:
            close_all(message.fds)
        report(warned)
        return value

    def _map_segments(self, idents: bytes, fds: list[int]) -> list[SegmentMapping]:
        """Map the segments that came with a result and are not mapped here yet."""
        mapped = []
        with self._lock:
            for (ident,), fd in zip(_IDENTS.iter_unpack(idents), fds, strict=True):
                mapping = self._segments.get(ident)
                if mapping is None:
                    mapping = self._segments[ident] = map_segment(
                        fd, os.fstat(fd).st_size, writeable=not self.read_only
                    )
                mapped.append(mapping)
        return mapped

    def _resolve(self, handle: bytes | ObjectHandle, counted: list[int]) -> Any:
        """Make the proxy that a handle in a reply stands for; the reply granted a lease with it."""
        if isinstance(handle, ObjectHandle):
            lease = Lease(self, handle.ident)
            proxy = make_proxy(lease, handle)
        else:
            array = unpack_handle(handle)
            # The host may take a segment to be mapped here when that has just ended: then it is asked again.
            lease = source = self._leased_source(array) or self.attach(handle)
            proxy = make_proxy(source, array.layout)
        _count(lease, counted)
        return proxy

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
        source = self.sources.get(array.ident)
        self._welcomed = None
        if source is None:
            source = cast("Source", self._exchange(Kind.ATTACH, packed, resolve=self._attached))
        array.layout.check(source.n_bytes)
        return source

    def _attached(self, handle: bytes, counted: list[int]) -> Source:
        """Make the source of the handle that the host answers with: the one it was asked with may be made up."""
        array = unpack_handle(handle)
        source = self._leased_source(array)
        if source is None:
            raise ProtocolError(f"the host sent no segment for array {array.ident}")
        _count(source, counted)
        return source

    def _leased_source(self, array: ArrayHandle) -> Source | None:
        """Return an array that the host has just leased to this process; None if its segment is not mapped here."""
        with self._lock:
            source = self.sources.get(array.ident)
            if source is not None:
                return source
            assert self._table is not None
            if self.is_remote:
                source = RemoteSource(self, array, RemoteGuard(self, self._table, array))
                self.sources[array.ident] = source
                return source
            mapped = self._segments.get(array.segment)
            if mapped is None:
                return None
            assert self._files is not None
            guard = self._guard_type(self._table, self._files, array.slot, array.generation)
            guard.check_current()
            source = MappedSource(self, array, guard, mapped)
            if array.n_bytes < mapped.n_bytes:
                self._latest_shared = mapped
            self.sources[array.ident] = source
            return source

    def context(self) -> dict[str, Any] | None:
        """What the host has to know of the caller: the slots it holds, its floating-point settings; None if nothing."""
        settings = np.geterr()
        held = [hold for hold in held_here() if hold.guard.table is self._table]
        if not held and settings == _DEFAULT_ERRORS:
            return None
        return {
            "held": [[hold.guard.slot, hold.mode] for hold in held],
            "errstate": {kind: TRAVELLING.get(str(how), how) for kind, how in settings.items()},
        }

    # -- the link ------------------------------------------------------------------------------------------------

    def evaluate(self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate an operation in the host. Cost: one round trip."""
        if self.read_only:
            check_evaluation_reads_only(operation, args, kwargs, is_proxy)
        return self.request(Kind.EVALUATE, [*operation, list(args), dict(kwargs), self.context()])

    def apply(self, target: Any, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float) -> Any:
        """Call a function in the host with a copy of an array, and write that back. Cost: one round trip."""
        request = [target, sendable(function), list(args), dict(kwargs), timeout, self.context()]
        return self.request(Kind.APPLY, request)

    def set_item(self, target: Any, index: Any, value: Any) -> None:
        """Carry out ``target[index] = value`` in the host. Cost: one round trip."""
        if self.read_only:
            check_reads_only(Kind.SET_ITEM)
        context = self.context()
        if type(index) in _NUMBERS and type(value) in _NUMBERS:
            # One element: by far the most frequent request, and one that needs no more than msgpack.
            try:
                body = msgpack.packb([target.reference(self, by_value=True), index, value, context])
            except OverflowError:
                pass  # an integer of more than 64 bits
            else:
                self._exchange(Kind.SET_ITEM, body)
                return
        self.request(Kind.SET_ITEM, [target, index, value, context])

    def snapshot(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Have the host copy views of one array under one hold of its lock. Cost: one round trip."""
        return cast("list[npt.NDArray[Any]]", self.request(Kind.SNAPSHOT, [list(views), self.context()]))

    def call(self, handle: ObjectHandle, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of a hosted object. Cost: one round trip."""
        if self.read_only:
            check_call_reads_only(name)
        return self.request(Kind.CALL, [handle.ident, name, list(args), dict(kwargs), self.context()])

    def attributes(
        self, handle: ArrayHandle, changes: Mapping[str, Any], removed: Sequence[str], mode: str
    ) -> dict[str, Any]:
        """Read or change an array's attributes. Cost: one round trip."""
        if self.read_only and mode != "read":
            raise ReadOnlyError("attributes cannot be changed")
        return cast("dict[str, Any]", self.request(Kind.ATTRIBUTES, [handle, dict(changes), list(removed), mode]))

    def attach_object(self, handle: ObjectHandle) -> Lease:
        """Lease a hosted object that a pickled handle names. Cost: one round trip.

        Raises
        ------
        StaleProxyError
            It has been freed.
        """
        lease = Lease(self, handle.ident)
        missing = self.request(Kind.CLAIM, [handle.ident])
        lease.count[0] = 0 if missing else 1
        if missing:
            raise StaleProxyError(
                f"object {handle.ident} ({handle.typeid}) is not hosted any more: its last lease and the grace of its "
                "handles ended"
            )
        return lease

    def watch(self, lease: Lease) -> None:
        """Give back what `lease` counts when it dies."""
        self._channel.watch(lease)

    def export(self, ident: int) -> None:
        """Tell the host that a handle of the referent is being pickled. Cost: one message, no answer awaited."""
        self.open()
        self._channel.tell(Kind.EXPORT, [ident])

    # -- fork ----------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Let no other thread make a connection or a mapping, which the child would inherit half done."""
        self._lock.acquire()

    def keep_leases(self) -> None:
        """Have the host keep all leases for the child that is about to be forked."""
        self._channel.before_fork(by_grace=self.is_remote)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._channel.after_fork_in_parent()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of the parent's sockets, or its death would go unnoticed; connect anew on the first request."""
        self._lock = threading.RLock()
        self._channel.after_fork_in_child()
        self._hang_up()
