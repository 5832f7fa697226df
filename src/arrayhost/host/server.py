"""The server: who connects, who is still there, and a thread for each client thread.

One loop watches everything that needs no thread: the listener, peers that have not said hello yet, each session's
lease channel, the pipes of forked children, and the process that started the host. A session ends when its lease
channel does, which the kernel sees to however the client died.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import itertools
import logging
import os
import selectors
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import msgpack

from arrayhost.core.records import ClientRecord, HostRecord
from arrayhost.errors import NotAuthorizedError, ProtocolError, StaleProxyError
from arrayhost.host import reports
from arrayhost.host.clients import describe_process
from arrayhost.host.inspection import array_records
from arrayhost.host.requests import CallConnection
from arrayhost.memory.descriptors import at_limit
from arrayhost.wire import failures
from arrayhost.wire.authentication import prove
from arrayhost.wire.codec import pack_handle
from arrayhost.wire.frames import FrameDecoder, Kind, pack_frame
from arrayhost.wire.streams import (
    UnixStream,
    bind_unix,
    check_peer,
    close_all,
    peer_credentials,
    receive_ready,
    socket_name,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable

    from arrayhost.core.records import Creator, HostStatistics
    from arrayhost.host.service import Service
    from arrayhost.host.store import Operand
    from arrayhost.wire.frames import Frame

__all__ = ["Server"]

log = logging.getLogger(__name__)

_servers: weakref.WeakSet[Server] = weakref.WeakSet()

# A peer that has not finished its hello by then is dropped.
_HELLO_SECONDS = 5.0
_MAX_PENDING = 256
# While draining: how often to look whether the last request has been answered.
_DRAIN_LOOK = 0.02


class _Pending:
    """A peer that has connected and not said who it is."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.socket = sock
        self.deadline = deadline
        self.decoder = FrameDecoder()
        self.fds: list[int] = []
        self.is_watched = False


class _Session:
    """A client process: its lease channel and its threads' connections."""

    def __init__(self, ident: bytes, sock: socket.socket, decoder: FrameDecoder, client: Creator) -> None:
        self.ident = ident
        self.socket = sock
        self.decoder = decoder
        self.fds: list[int] = []
        self.last_told = 0
        self.connections: dict[int, CallConnection] = {}
        self.client = client
        self.connected = time.time()
        self.n_requests_before = 0  # on connections that have ended


class Server:
    """Serve a `Service` on a Unix socket.

    Parameters
    ----------
    make_service : callable
        Called with nothing; builds the service in the process that serves.
    address : str
        ``unix:/path`` or ``unix:@name``.
    authkey : bytes
        A client that presents a key must present this one. Without one the kernel's word on its user decides.
    parent_pid : int, optional
        Stop when this process ends.

    Notes
    -----
    Safety: `stop` from any thread; everything else from the one that calls `serve_forever`.
    """

    def __init__(self, service: Service, address: str, authkey: bytes, *, parent_pidfd: int | None = None) -> None:
        self.service = service
        self.address = address
        self.host_id = os.urandom(16)
        self._authkey = authkey
        self._listener = bind_unix(address)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Given up for a moment when there is no other descriptor, so that a client is told instead of left waiting.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._pending: set[_Pending] = set()
        self._sessions: dict[bytes, _Session] = {}
        self._guards = itertools.count()
        self._connections: dict[CallConnection, _Session] = {}
        self._n_requests_before = 0
        self._count_lock = threading.Lock()
        self._stopping = False
        self._drains_until: float | None = None
        self.drain_seconds = 0.0  # given to running requests when a client asks for the end
        self._parent_pidfd = parent_pidfd
        _servers.add(self)

    # -- life ----------------------------------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until `stop`; the process's warnings are routed to callers meanwhile."""
        reports.install()
        log.info("process %d hosts arrays at %s", os.getpid(), self.address)
        watch = self._selector.register
        watch(self._listener, selectors.EVENT_READ, self._accept)
        watch(self._wake, selectors.EVENT_READ, self._woken)
        if self._parent_pidfd is not None:
            watch(self._parent_pidfd, selectors.EVENT_READ, self._parent_ended)
        try:
            while not self._stopping:
                self._turn()
        finally:
            reports.uninstall()
            self._close()
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
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

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
            connections = list(self._connections.items())
        store = self.service.store
        records = []
        for session in list(self._sessions.values()):
            own = [connection for connection, other in connections if other is session]
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
        due = [pending.deadline for pending in self._pending]
        expiry = self.service.store.expire()
        if expiry is not None:
            due.append(expiry)
        if self._drains_until is not None:
            due.append(self._drain_on())
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in self._selector.select(timeout):
            try:
                key.data()
            except ProtocolError as error:
                log.debug("dropped a peer: %s", error)
        now = time.monotonic()
        for pending in [one for one in self._pending if one.deadline <= now]:
            self._drop_pending(pending)

    def _drain_on(self) -> float:
        """Carry a drain further; return when (monotonic seconds) to look again."""
        assert self._drains_until is not None
        if self._listener.fileno() >= 0:
            log.info("draining: %d connections", len(self._connections))
            self._stop_listening()
        with self._count_lock:
            connections = list(self._connections)
        for connection in connections:
            connection.end_after_answer()
        now = time.monotonic()
        if not connections or now >= self._drains_until:
            if connections:
                log.warning("%d requests were still running when the time to drain was over", len(connections))
            self._stopping = True
            return now
        return min(now + _DRAIN_LOOK, self._drains_until)

    def _stop_listening(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        if not self.address.startswith("unix:@"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(socket_name(self.address))

    def _close(self) -> None:
        if self._listener.fileno() >= 0:
            self._stop_listening()
        for pending in list(self._pending):
            self._drop_pending(pending)
        # First, so that the end of the sessions frees nothing: clients go on reading what they have mapped.
        self.service.store.close()
        for session in list(self._sessions.values()):
            self._end_session(session)
        self._selector.close()
        os.close(self._wake)
        os.close(self._spare)
        if self._parent_pidfd is not None:
            os.close(self._parent_pidfd)

    def after_fork_in_child(self) -> None:
        """Let go of every socket: while the child had them open, nobody would notice the host's end."""
        self._listener.close()
        for pending in self._pending:
            pending.socket.close()
        for session in self._sessions.values():
            session.socket.close()
            for connection in session.connections.values():
                connection.hang_up()

    def _parent_ended(self) -> None:
        log.info("the process that started this host has ended")
        self._stopping = True

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    # -- peers ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.warning("cannot accept a client: %s", error)
            self._turn_away(error)
            return
        try:
            check_peer(sock)
            if len(self._pending) >= _MAX_PENDING:
                raise NotAuthorizedError("too many peers that have not said hello")
        except (NotAuthorizedError, OSError) as error:
            log.warning("refused a client: %s", error)
            sock.close()
            return
        sock.setblocking(False)
        pending = _Pending(sock, time.monotonic() + _HELLO_SECONDS)
        self._pending.add(pending)
        self._hear(pending)  # most peers have said hello by now, and need no watch
        if pending in self._pending:
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._hear(pending))
            pending.is_watched = True

    def _turn_away(self, error: OSError) -> None:
        """Without a descriptor to be had, use the spare one to tell a client so."""
        os.close(self._spare)
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # Another thread was quicker. The listener stays readable, so without a pause this would be a busy loop.
            time.sleep(0.05)
        else:
            with sock:
                self._tell_refusal(sock, 0, at_limit("another client", error.errno or errno.EMFILE))
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _drop_pending(self, pending: _Pending) -> None:
        self._no_longer_pending(pending)
        pending.socket.close()

    def _no_longer_pending(self, pending: _Pending) -> None:
        self._pending.discard(pending)
        if pending.is_watched:
            self._selector.unregister(pending.socket)
        close_all(pending.fds)

    def _hear(self, pending: _Pending) -> None:
        """Read a new peer's hello as it arrives."""
        frame = None
        try:
            if not receive_ready(pending.socket, pending.decoder, pending.fds):
                self._drop_pending(pending)
                return
            frame = pending.decoder.next_frame()
            if frame is None:
                return
            role, ident, number, wanted = self._read_hello(frame)
        except (ProtocolError, NotAuthorizedError) as error:
            self._refuse(pending, frame, error)
            return
        self._no_longer_pending(pending)
        if role == "session":
            self._begin_session(pending, frame, ident, wanted)
        else:
            self._begin_calls(pending, frame, ident, number)

    def _read_hello(self, frame: Frame) -> tuple[str, bytes, int, bytes]:
        if frame.kind != Kind.HELLO:
            raise ProtocolError(f"a {Kind(frame.kind).name} frame where a hello was due")
        try:
            role, ident, number, proof, wanted = msgpack.unpackb(frame.body)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise ProtocolError("a malformed hello") from error
        if role not in ("session", "calls") or not isinstance(ident, bytes) or len(ident) != 16:
            raise ProtocolError("a malformed hello")
        if not isinstance(number, int) or not isinstance(proof, bytes) or not isinstance(wanted, bytes):
            raise ProtocolError("a malformed hello")
        if proof and not hmac.compare_digest(proof, prove(self._authkey, ident)):
            raise NotAuthorizedError("the client's authkey is not this host's; give connect() the key of the host")
        if (role == "calls") != (ident in self._sessions):
            raise ProtocolError("a connection without its session")
        return role, ident, number, wanted

    def _refuse(self, pending: _Pending, frame: Frame | None, error: Exception) -> None:
        log.warning("refused a client: %s", error)
        self._tell_refusal(pending.socket, frame.sequence if frame else 0, error)
        self._drop_pending(pending)

    def _tell_refusal(self, sock: socket.socket, sequence: int, error: Exception) -> None:
        description = failures.describe(error, with_traceback=False, allow_pickle=False)
        with contextlib.suppress(OSError):
            sock.send(pack_frame(Kind.ERROR, sequence, msgpack.packb(description)))

    def _begin_session(self, pending: _Pending, frame: Frame, ident: bytes, wanted: bytes) -> None:
        session = _Session(ident, pending.socket, pending.decoder, describe_process(*peer_credentials(pending.socket)))
        store = self.service.store
        fds = [store.control_fd, *store.files.fds()]
        n_files = len(fds) - 1
        operand = self._lease_wanted(wanted, ident) if wanted else None
        if operand is not None:
            fds.append(operand.referent.place.segment.fd)
        welcome = b"" if operand is None else pack_handle(operand.handle())
        about = [self.host_id, self.service.lock_timeout, store.table.n_slots, n_files, welcome]
        try:
            UnixStream(session.socket).send(Kind.RESULT, frame.sequence, msgpack.packb(about), fds=fds)
        except ConnectionError:
            session.socket.close()
            store.drop_holder(ident)
            return
        self._sessions[ident] = session
        log.info("process %d connected: %s", session.client.pid, session.client.program)
        self._selector.register(session.socket, selectors.EVENT_READ, lambda: self._lease_channel(session))

    def _lease_wanted(self, packed: bytes, ident: bytes) -> Operand | None:
        """Find the array that a new session has a handle of; if it is gone, the session is told when it asks again."""
        store = self.service.store
        try:
            operand = store.find_packed(packed)
            store.grant(operand.referent.ident, ident)
        except StaleProxyError:
            return None
        return operand

    def _begin_calls(self, pending: _Pending, frame: Frame, ident: bytes, number: int) -> None:
        session = self._sessions[ident]
        pending.socket.setblocking(True)
        connection = CallConnection(self, UnixStream(pending.socket), ident, session.client)
        session.connections[number] = connection
        with self._count_lock:
            self._connections[connection] = session

        def serve() -> None:
            try:
                connection.serve()
            finally:
                self._forget_connection(connection)
                if ident not in self._sessions:
                    # The kernel closes a dead process's sockets one by one: something may have been granted here after
                    # the session had ended.
                    self.service.store.drop_holder(ident)
                # Kept a little: an interrupted client names its connection after having closed it.
                while len(session.connections) > 64:
                    session.connections.pop(next(iter(session.connections)), None)

        try:
            pending.socket.send(pack_frame(Kind.DONE, frame.sequence, b""))
            threading.Thread(target=serve, name=f"arrayhost-calls-{number}", daemon=True).start()
        except (OSError, RuntimeError) as error:
            log.warning("cannot serve a client: %s", error)
            pending.socket.close()
            self._forget_connection(connection)

    def _forget_connection(self, connection: CallConnection) -> None:
        with self._count_lock:
            session = self._connections.pop(connection)
            session.n_requests_before += connection.n_requests
            self._n_requests_before += connection.n_requests

    # -- leases --------------------------------------------------------------------------------------------------

    def _lease_channel(self, session: _Session) -> None:
        """Act on what a session says of its leases; end it when the kernel says that its process is gone."""
        try:
            alive = receive_ready(session.socket, session.decoder, session.fds)
            while (frame := session.decoder.next_frame()) is not None:
                if frame.sequence and frame.sequence == session.last_told:
                    continue  # a client that was interrupted after it had sent this sends it again
                session.last_told = frame.sequence
                _LEASE_HANDLERS[frame.kind](self, session, msgpack.unpackb(frame.body))
        except (ProtocolError, KeyError, ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            log.warning("a session sent something malformed and is dropped: %s", error)
            alive = False
        if not alive:
            self._end_session(session)

    def _end_session(self, session: _Session) -> None:
        if self._sessions.pop(session.ident, None) is None:
            return
        self._selector.unregister(session.socket)
        session.socket.close()
        close_all(session.fds)
        log.info("process %d has gone", session.client.pid)
        self.service.store.judge_writer(session.ident, session.client.pid)
        self.service.store.drop_holder(session.ident)

    def _release(self, session: _Session, body: Any) -> None:
        for ident, count in body:
            self.service.store.release(int(ident), session.ident, int(count))

    def _export(self, session: _Session, body: Any) -> None:
        store = self.service.store
        with store.lock:
            for ident in body:
                store.leases.export(int(ident), time.monotonic())

    def _fork_guard(self, session: _Session, body: Any) -> None:
        """Keep a session's leases for a child about to be forked, until the child's end of a pipe closes."""
        if not session.fds:
            raise ProtocolError("a fork without its pipe")
        pipe = session.fds.pop(0)
        holder: Hashable = ("fork", next(self._guards))
        store = self.service.store
        with store.lock:
            store.leases.copy_holder(session.ident, holder)

        def ended() -> None:
            self._selector.unregister(pipe)
            os.close(pipe)
            store.drop_holder(holder)

        self._selector.register(pipe, selectors.EVENT_READ, ended)

    def _abandon(self, session: _Session, body: Any) -> None:
        number, sequence, counted = body
        connection = session.connections.pop(number, None)
        if connection is not None:
            connection.abandon(sequence, counted)


_LEASE_HANDLERS: dict[int, Callable[[Server, _Session, Any], None]] = {
    int(Kind.RELEASE): Server._release,
    int(Kind.EXPORT): Server._export,
    int(Kind.FORK_GUARD): Server._fork_guard,
    int(Kind.ABANDON): Server._abandon,
}


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
