"""The server: who connects, who is still there, and a thread for each client thread that asks for something.

One loop watches everything that needs no thread: listeners, peers that have not said hello yet, each client's lease
channel, connections that are idle, the pipes of forked children, and the process that started the host. A client's
session ends when its lease channel does, which the kernel sees to however the client died.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import itertools
import logging
import os
import resource
import socket
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import msgpack

from arrayhost.core.addresses import advertised
from arrayhost.core.records import ClientRecord, Creator, HostRecord
from arrayhost.errors import ArrayHostError, HostBusyError, NotAuthorizedError, ProtocolError, StaleProxyError
from arrayhost.host import reports
from arrayhost.host.clients import describe_process
from arrayhost.host.inspection import array_records
from arrayhost.host.loop import Loop
from arrayhost.host.network import NetworkListener
from arrayhost.host.places import nothing_to_settle
from arrayhost.host.reception import Reception, tell_refusal
from arrayhost.host.requests import CallConnection
from arrayhost.host.sessions import ClientSession, fork_pipe, lease_message
from arrayhost.host.suspects import Suspects
from arrayhost.memory._libc import trim_heap
from arrayhost.memory.access import to_send
from arrayhost.memory.ceiling import ceiling
from arrayhost.wire.addresses import UnixListener, peer_credentials
from arrayhost.wire.authentication import prove
from arrayhost.wire.codec import pack_handle
from arrayhost.wire.frames import Kind
from arrayhost.wire.hello import CALLS, READ_ONLY, SESSION, unpack_hello
from arrayhost.wire.limits import Transit
from arrayhost.wire.streams import UnixStream, close_all, receive_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from arrayhost.core.records import HostStatistics
    from arrayhost.host.reception import Newcomer
    from arrayhost.host.service import Service
    from arrayhost.host.store import Operand
    from arrayhost.wire.frames import Frame
    from arrayhost.wire.hello import Hello
    from arrayhost.wire.limits import Limits
    from arrayhost.wire.network import NetworkStream
    from arrayhost.wire.streams import Message

__all__ = ["Server"]

log = logging.getLogger(__name__)

_servers: weakref.WeakSet[Server] = weakref.WeakSet()

# While draining: how often to look whether the last request has been answered.
_DRAIN_LOOK = 0.02
# Of the descriptors that this process may have, peers get half: the rest is for arrays and for whom is being answered.
_PEERS_SHARE = 0.5
# After an error that no peer of the loop's caused. Without a pause a lasting one would be a busy loop.
_PAUSE_SECONDS = 0.05
# A loop that takes longer than this has other troubles than a request for memory.
_SETTLE_SECONDS = 1.0
_LEASE_BYTES = 64 * 1024


class Server:
    """Serve a `Service` on a Unix socket, and on TCP ports.

    Parameters
    ----------
    service : Service
    address : str
        ``unix:/path`` or ``unix:@name``.
    authkey : bytes
        Over TCP every peer has to prove it.
    needs_key : bool
        Whether those of the Unix socket have to, too; else the kernel's word on their user decides, and only a client
        that was given another key for this host is refused.
    parent_pidfd : int or None
        Stop when this process ends.
    limits : Limits
        What peers are allowed.
    trust_peers : bool
        Whether pickles are read from the peers of this socket, which run as the same user.

    Notes
    -----
    Safety: `stop` from any thread; everything else from the one that calls `serve_forever`.
    """

    def __init__(
        self,
        service: Service,
        address: str,
        authkey: bytes,
        *,
        needs_key: bool,
        parent_pidfd: int | None,
        limits: Limits,
        trust_peers: bool,
    ) -> None:
        self.service = service
        self.address = address
        self.host_id = os.urandom(16)
        self._authkey = authkey
        self._needs_key = needs_key
        self._limits = limits
        self._listener = UnixListener(address, trusted=trust_peers)
        self._loop = Loop()
        self._reception = Reception(self._loop, limits, self._admit)
        self._transit = Transit(limits)
        self._suspects = Suspects(service.store)
        self._sessions: dict[bytes, ClientSession] = {}
        self._connections: set[CallConnection] = set()
        self._n_requests_before = 0  # on connections that have ended
        self._count_lock = threading.Lock()
        self._idle: deque[CallConnection] = deque()  # whose threads have ended for want of work
        self._parked: set[CallConnection] = set()  # watched by the loop meanwhile
        self._unfinished: dict[
            ClientSession, float
        ] = {}  # since when part of a lease message is missing; the oldest first
        self._guards = itertools.count()
        self._stopping = False
        self._serves = False
        self._drains_until: float | None = None
        self.drain_seconds = 0.0  # given to running requests when a client asks for the end
        self._parent_pidfd = parent_pidfd
        self._network: list[NetworkListener] = []
        self._todo: deque[Callable[[], None]] = deque()  # what other threads have the loop do
        self._settling: deque[threading.Event] = deque()  # set after the next whole turn
        self._loop_thread = 0
        _servers.add(self)

    # -- life ----------------------------------------------------------------------------------------------------

    def listen(self, address: str, tls: Any = None, *, insecure: bool = False) -> str:
        """Listen on a TCP port besides; return its address with the port that was taken.

        Parameters
        ----------
        address : str
            ``tcp://host:port``; port 0 takes a free one.
        tls : None, SSLContext or sequence of path
            See `arrayhost.wire.tls.host_context`.
        insecure : bool
            Listen on other addresses than loopback also without TLS.

        Raises
        ------
        NotAuthorizedError, OSError, ValueError
        """
        listener = NetworkListener(address, self._authkey, tls, insecure=insecure, welcome=self._welcome)
        self._network.append(listener)
        return listener.address

    @property
    def network_addresses(self) -> tuple[str, ...]:
        """The TCP ports that it listens on."""
        return tuple(listener.address for listener in self._network)

    @property
    def advertised(self) -> tuple[str, ...]:
        """The TCP ports as other machines may find them, for handles that are passed on to these."""
        machine = socket.gethostname()
        return tuple(advertised(address, machine) for address in self.network_addresses)

    def serve_forever(self) -> None:
        """Serve until `stop`; the process's warnings are routed to callers meanwhile."""
        reports.install()
        log.info("process %d hosts arrays at %s", os.getpid(), self.address)
        self._reception.open(self._listener)
        self._serves = True
        self._loop_thread = threading.get_ident()
        self.service.store.places.settle = self.settle
        for listener in self._network:
            listener.start()
        if self._parent_pidfd is not None:
            self._loop.watch(self._parent_pidfd, self._parent_ended, self._parent_ended)
        try:
            while not self._stopping:
                try:
                    self._turn()
                except Exception:  # a defect of ours: everything hosted here would be lost with the loop
                    log.exception("an unexpected error in the host's loop")
                    time.sleep(_PAUSE_SECONDS)
        finally:
            self.service.store.places.settle = nothing_to_settle
            reports.uninstall()
            ceiling.lift(ceiling.until)
            self.close()
            log.info("the host at %s has ended", self.address)

    def stop(self) -> None:
        """End `serve_forever` soon."""
        self._stopping = True
        self.wake()

    def end(self) -> None:
        """End as the host's owner chose: at once, or when what runs is answered."""
        if self.drain_seconds:
            self.drain(self.drain_seconds)
        else:
            self.stop()

    def drain(self, seconds: float) -> None:
        """Take no further client or request, and end `serve_forever` when all that run are answered.

        Parameters
        ----------
        seconds : float
            At most so long.

        Notes
        -----
        Safety: any thread, and signal handlers.
        """
        self._drains_until = time.monotonic() + seconds
        self.wake()

    def wake(self) -> None:
        """Make the loop look around."""
        self._loop.wake()

    def statistics(self) -> HostStatistics:
        """Describe what is hosted, and for whom."""
        with self._count_lock:
            connections = list(self._connections)
            before = self._n_requests_before
        return self.service.store.statistics(
            n_sessions=len(self._sessions),
            n_connections=len(connections),
            n_requests=before + sum(connection.n_requests for connection in connections),
        )

    def clients(self) -> list[ClientRecord]:
        """Describe every connected process."""
        with self._count_lock:
            connections = list(self._connections)
        store = self.service.store
        records = []
        for session in list(self._sessions.values()):
            own = [connection for connection in connections if connection.session is session]
            with store.lock:
                n_arrays = len(frozenset(store.leases.holdings(session.ident)))
            client = session.client
            n_requests = session.n_requests_before + sum(connection.n_requests for connection in own)
            records.append(
                ClientRecord(client.pid, client.user, client.program, session.connected, len(own), n_requests, n_arrays)
            )
        return records

    def record(self) -> HostRecord:
        """Describe the host with everything in it."""
        arrays = array_records(self.service.store, self.client_of)
        return HostRecord(self.statistics(), tuple(arrays), tuple(self.clients()))

    def client_of(self, holder: Hashable) -> Creator | None:
        """Return the process behind a holder of leases; None if it is no client."""
        session = self._sessions.get(holder) if isinstance(holder, bytes) else None
        return None if session is None else session.client

    def _turn(self) -> None:
        self.service.flush_released()
        self._watch_idle()
        times = [self.service.store.expire(), self._reception.next_deadline(), self._next_lease_deadline()]
        times += [self._keep_bound(), self._suspects.look()]
        if self._drains_until is not None:
            times.append(self._drain_on(self._drains_until))
        due = min((when for when in times if when is not None), default=None)
        n_settling = len(self._settling)
        if n_settling:
            due = 0.0
        self._loop.turn(None if due is None else max(0.0, due - time.monotonic()))
        for _ in range(n_settling):
            self._settling.popleft().set()
        while self._todo:
            self._todo.popleft()()
        self._reception.keep_deadlines()
        self._keep_lease_deadlines()

    def settle(self) -> bool:
        """Wait until the loop has acted on what clients had told it before; False if this is its thread, or it is slow.

        Of each client's channel it reads as much as one receive takes.
        A client that drops an array says so on its lease channel, and may ask for the next one, on another socket,
        before the loop has looked there.
        """
        if threading.get_ident() == self._loop_thread:
            return False
        settled = threading.Event()
        self._settling.append(settled)
        with contextlib.suppress(OSError):  # the loop has ended
            self.wake()
        return settled.wait(_SETTLE_SECONDS)

    def bound_memory(self) -> None:
        """Bound what a request that is about to run may allocate; the loop keeps the bound, and takes it away."""
        if ceiling.keep():
            self.wake()

    def _keep_bound(self) -> float | None:
        """Look at the free memory again while requests run; return when (monotonic seconds) to do so once more."""
        until = ceiling.until
        if until and until <= time.monotonic():
            with self._count_lock:
                is_busy = any(connection.is_busy for connection in self._connections)
            if is_busy:
                ceiling.again()
            else:
                ceiling.lift(until)
                # The C library keeps what was freed, in an arena for each few threads, and never uses all of it again.
                trim_heap()
        return ceiling.until or None

    def _drain_on(self, until: float) -> float:
        """Carry a drain further; return when (monotonic seconds) to look again."""
        with self._count_lock:
            connections = list(self._connections)
        if self._reception.is_open:
            log.info("draining: %d connections", len(connections))
            self._stop_listening()
        for connection in connections:
            connection.end_after_answer()
        now = time.monotonic()
        if not connections or now >= until:
            if connections:
                log.warning("%d requests were still running when the time to drain was over", len(connections))
            self._stopping = True
            return now
        return min(now + _DRAIN_LOOK, until)

    def _stop_listening(self) -> None:
        self._reception.close()
        for listener in self._network:
            listener.close()

    def close(self) -> None:
        """Let go of everything; `serve_forever` does this at its end."""
        self._stop_listening()
        if not self._serves:
            self._listener.close()  # else it was the reception's
        # First, so that the end of the sessions frees nothing: clients go on reading what they have mapped.
        self.service.store.close()
        for session in list(self._sessions.values()):
            self._end_session(session)
        for connection in [*self._idle, *self._parked]:
            self._end_calls(connection)
        self._loop.close()
        if self._parent_pidfd is not None:
            os.close(self._parent_pidfd)

    def after_fork_in_child(self) -> None:
        """Let go of every socket: while the child had them open, nobody would notice the host's end."""
        self._reception.hang_up()
        for listener in self._network:
            listener.after_fork_in_child()
        for session in self._sessions.values():
            session.socket.close()
        for connection in self._connections:
            connection.hang_up()

    def _parent_ended(self) -> None:
        log.info("the process that started this host has ended")
        self._stopping = True

    # -- hellos --------------------------------------------------------------------------------------------------

    def _admit(self, newcomer: Newcomer, hello: Hello, sequence: int) -> None:
        """Take a peer in, or raise what it is refused with."""
        if hello.role == SESSION:
            self._check_key(hello)
        session = self._session_of(hello)
        if session is None:
            self._begin_session(newcomer, hello, sequence)
        else:
            newcomer.socket.setblocking(True)
            stream = UnixStream(newcomer.socket, trusted=session.trusted and newcomer.trusted)
            stream.limit(self._transit)
            self._begin_calls(stream, session, hello.number, sequence)

    def _check_key(self, hello: Hello) -> None:
        """Refuse a client of the Unix socket that lacks the key where it needs one."""
        if hmac.compare_digest(hello.proof, prove(self._authkey, hello.ident)):
            return
        if self._needs_key:
            raise NotAuthorizedError(
                "this host was given an authkey, which its clients need: pass authkey= to connect(), or set "
                "multiprocessing.current_process().authkey or ARRAYHOST_KEY_FILE"
            )
        if hello.given:
            raise NotAuthorizedError("the client's authkey is not this host's; give connect() the key of the host")

    @property
    def key_to_give(self) -> bytes | None:
        """The key, if clients of the Unix socket need it."""
        return self._authkey if self._needs_key else None

    def _session_of(self, hello: Hello) -> ClientSession | None:
        """Return the session that a hello belongs to, None if it begins one, or raise what it is refused with."""
        session = self._sessions.get(hello.ident)
        if (hello.role == CALLS) != (session is not None):
            raise ProtocolError("a connection without its session")
        limit = _max_peers()
        if len(self._loop) + len(self._connections) - len(self._parked) >= limit:
            raise HostBusyError(limit)
        return session

    def _begin_session(self, newcomer: Newcomer, hello: Hello, sequence: int) -> None:
        store = self.service.store
        sock, read_only = newcomer.socket, hello.mode == READ_ONLY
        fds = [store.control_fd, *store.files.fds()]
        n_files = len(fds) - 1
        operand = self._lease_wanted(hello.wanted, hello.ident) if hello.wanted else None
        if operand is not None:
            fds.append(operand.referent.place.segment.fd)
        welcome = b"" if operand is None else pack_handle(operand.handle())
        about = [
            self.host_id, self.service.lock_timeout, store.table.n_slots, n_files, newcomer.trusted, self.advertised,
            welcome,
        ]  # fmt: skip
        try:
            with to_send(fds, read_only=read_only) as sendable:
                # The socket does not wait; a fresh one takes this much.
                stream = UnixStream(sock, trusted=newcomer.trusted)
                stream.send(Kind.RESULT, sequence, msgpack.packb(about), fds=sendable)
        except BaseException:
            store.drop_holder(hello.ident)
            raise
        # After the answer: to find out who it is takes as long as all of the above.
        client = describe_process(*peer_credentials(sock))
        session = ClientSession(hello.ident, sock, client, read_only=read_only, trusted=newcomer.trusted)
        self._sessions[session.ident] = session
        log.info("process %d connected: %s", client.pid, client.program)

        def hear() -> None:
            self._hear_leases(session)

        self._loop.watch(sock, hear, lambda: self._end_session(session))

    def _lease_wanted(self, packed: bytes, ident: bytes) -> Operand | None:
        """Find the array that a new session has a handle of; if it is gone, the session is told when it asks again."""
        store = self.service.store
        try:
            operand = store.find_packed(packed)
            store.grant(operand.referent.ident, ident)
        except StaleProxyError:
            return None
        return operand

    def _begin_calls(
        self, stream: UnixStream | NetworkStream, session: ClientSession, number: int, sequence: int
    ) -> None:
        connection = CallConnection(self, stream, session, number)
        session.add(connection)
        with self._count_lock:
            self._connections.add(connection)
        try:
            stream.send(Kind.DONE, sequence, b"")
        except BaseException:
            self._end_calls(connection)
            raise
        self._start_thread(connection)

    # -- peers over the network ----------------------------------------------------------------------------------

    def _later(self, action: Callable[[], None]) -> None:
        """Have the loop do something. From any thread."""
        self._todo.append(action)
        with contextlib.suppress(OSError):  # the loop has ended
            self.wake()

    def _welcome(self, stream: NetworkStream, message: Message, peer: str) -> None:
        """Take over a peer that has proved the key. Called by the thread that heard it."""
        self._later(lambda: self._admit_remote(stream, message, peer))

    def _admit_remote(self, stream: NetworkStream, message: Message, peer: str) -> None:
        """Take a peer over the network in, or tell it why not."""
        try:
            if message.kind != Kind.HELLO:
                raise ProtocolError("something else than a hello from a peer that has just connected")
            hello = unpack_hello(message.body)
            session = self._session_of(hello)
            if session is None:
                self._begin_remote_session(stream, hello, message.sequence, peer)
            else:
                stream.limit(self._transit)
                self._begin_calls(stream, session, hello.number, message.sequence)
        except ArrayHostError as error:
            log.warning("refused a peer at %s: %s", peer, error)
            tell_refusal(stream.socket, message.sequence, error)
            stream.close()

    def _begin_remote_session(self, stream: NetworkStream, hello: Hello, sequence: int, peer: str) -> None:
        client = Creator(0, "", peer)
        session = ClientSession(
            hello.ident, stream.socket, client, read_only=hello.mode == READ_ONLY, trusted=stream.trusted
        )
        session.stream = stream
        store = self.service.store
        about = [self.host_id, self.service.lock_timeout, store.table.n_slots, 0, session.trusted, (), b""]
        stream.send(Kind.RESULT, sequence, msgpack.packb(about))
        self._sessions[session.ident] = session
        log.info("a process at %s connected", peer)
        name = "arrayhost-leases"
        threading.Thread(target=self._read_leases, args=(session, stream), name=name, daemon=True).start()

    def _read_leases(self, session: ClientSession, stream: NetworkStream) -> None:
        """Be the thread of a lease channel over the network: read it, and have the loop act."""
        try:
            while data := stream.socket.recv(_LEASE_BYTES):
                session.decoder.feed(data)
                frames = list(iter(session.decoder.next_frame, None))
                if frames:
                    self._later(functools.partial(self._obey, session, frames))
        except (OSError, ProtocolError) as error:
            log.info("the lease channel of %s broke: %s", session.client.program, error)
        finally:
            stream.close()
            self._later(lambda: self._end_session(session))

    def _obey(self, session: ClientSession, frames: list[Frame]) -> None:
        """Do what a client over the network says of its leases, or end its session."""
        try:
            for frame in frames:
                body = lease_message(frame)
                if session.is_new(frame):
                    _LEASE_HANDLERS[frame.kind](self, session, body, [])
        except ProtocolError as error:
            log.warning("a client sent something malformed on its lease channel and is dropped: %s", error)
            self._end_session(session)

    # -- connections ---------------------------------------------------------------------------------------------

    def _start_thread(self, connection: CallConnection) -> None:
        """Serve a connection in a thread of its own, until it ends or is idle."""
        name = f"arrayhost-calls-{connection.number}"
        thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
        try:
            try:
                thread.start()
            except RuntimeError:
                ceiling.lift(ceiling.until)  # which may have left no room for its stack
                thread.start()
        except RuntimeError as error:  # no more threads to be had
            log.warning("cannot serve a client: %s", error)
            self._end_calls(connection)

    def _serve(self, connection: CallConnection) -> None:
        """Be a connection's thread."""
        is_idle = False
        try:
            is_idle = connection.serve()
        except Exception:  # a defect of ours, met by one client; its connection ends
            log.exception("an unexpected error while serving a client")
        finally:
            if is_idle:
                self._idle.append(connection)
                self.wake()
            else:
                self._end_calls(connection)

    def _watch_idle(self) -> None:
        """Watch the connections whose threads have ended."""
        while self._idle:
            self._park(self._idle.popleft())

    def _park(self, connection: CallConnection) -> None:
        def resume() -> None:
            self._unpark(connection)
            if connection.stream.has_ended():
                self._end_calls(connection)
            else:
                self._start_thread(connection)

        def give_up() -> None:
            self._unpark(connection)
            self._end_calls(connection)

        self._parked.add(connection)
        self._loop.watch(connection.stream, resume, give_up)

    def _unpark(self, connection: CallConnection) -> None:
        self._parked.discard(connection)
        self._loop.unwatch(connection.stream)

    def _end_calls(self, connection: CallConnection) -> None:
        """Close a connection; called by its thread, or by the loop where it has none."""
        session = connection.session
        connection.hang_up()
        with self._count_lock:
            if connection in self._connections:
                self._connections.discard(connection)
                session.n_requests_before += connection.n_requests
                self._n_requests_before += connection.n_requests
        session.forget(connection)
        if session.ended:
            # Its last answer may have granted something after the session's leases were dropped.
            self.service.store.drop_holder(session.ident)

    # -- leases --------------------------------------------------------------------------------------------------

    def _hear_leases(self, session: ClientSession) -> None:
        """Act on what a client says of its leases; end its session when the kernel says that its process is gone."""
        try:
            alive = receive_ready(session.socket, session.decoder, session.fds)
            while (frame := session.decoder.next_frame()) is not None:
                fds = session.fds_of(frame)
                try:
                    body = lease_message(frame)
                    if session.is_new(frame):
                        _LEASE_HANDLERS[frame.kind](self, session, body, fds)
                finally:
                    close_all(fds)
            self._note_unfinished(session)
        except ProtocolError as error:
            log.warning("a client sent something malformed on its lease channel and is dropped: %s", error)
            alive = False
        if not alive:
            self._end_session(session)

    def _note_unfinished(self, session: ClientSession) -> None:
        if session.decoder.pending_bytes:
            self._unfinished.setdefault(session, time.monotonic())
            return
        self._unfinished.pop(session, None)
        if session.fds:
            raise ProtocolError("descriptors without a message that announces them")

    def _next_lease_deadline(self) -> float | None:
        since = next(iter(self._unfinished.values()), None)
        return None if since is None else since + self._limits.lease_seconds

    def _keep_lease_deadlines(self) -> None:
        while (when := self._next_lease_deadline()) is not None and when <= time.monotonic():
            log.warning("a client left a message on its lease channel unfinished and is dropped")
            self._end_session(next(iter(self._unfinished)))

    def _end_session(self, session: ClientSession) -> None:
        if self._sessions.pop(session.ident, None) is None:
            return
        session.ended = True
        self._unfinished.pop(session, None)
        if session.stream is None:
            self._loop.unwatch(session.socket)
            session.socket.close()
        else:
            session.stream.cut()  # its thread closes it
        close_all(session.fds)
        for connection in session.connections():
            connection.stream.cut()
        log.info("process %d has gone", session.client.pid)
        self._suspects.add(session.ident, session.client.pid)
        self.service.store.drop_holder(session.ident)

    def _release(self, session: ClientSession, body: Any, fds: list[int]) -> None:
        for ident, count in body:
            self.service.store.release(ident, session.ident, count)

    def _export(self, session: ClientSession, body: Any, fds: list[int]) -> None:
        store = self.service.store
        with store.lock:
            for ident in body:
                if store.leases.has(ident, session.ident):
                    store.leases.export(ident, time.monotonic())

    def _fork_guard(self, session: ClientSession, body: Any, fds: list[int]) -> None:
        """Keep a client's leases for a child about to be forked, until the child's end of a pipe closes."""
        if session.n_forks >= self._limits.max_forks:
            raise ProtocolError(f"more than {self._limits.max_forks} forked children that have not connected")
        pipe = fork_pipe(fds)
        holder: Hashable = ("fork", next(self._guards))
        store = self.service.store
        with store.lock:
            store.leases.copy_holder(session.ident, holder)

        def ended() -> None:
            self._loop.unwatch(pipe)
            os.close(pipe)
            session.n_forks -= 1
            store.drop_holder(holder)

        session.n_forks += 1
        self._loop.watch(pipe, ended, ended)

    def _abandon(self, session: ClientSession, body: Any, fds: list[int]) -> None:
        session.abandon(*body)


_LEASE_HANDLERS: dict[int, Callable[[Server, ClientSession, Any, list[int]], None]] = {
    int(Kind.RELEASE): Server._release,
    int(Kind.EXPORT): Server._export,
    int(Kind.FORK_GUARD): Server._fork_guard,
    int(Kind.ABANDON): Server._abandon,
}


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _max_peers() -> int:
    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * _PEERS_SHARE)
