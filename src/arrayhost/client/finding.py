"""Finding the session with a host, by its address or by a handle of its; all of them before and after a fork."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arrayhost.client import registry
from arrayhost.client.session import Session
from arrayhost.client.ways import way_to
from arrayhost.errors import HostGoneError, NotAuthorizedError, TransportError
from arrayhost.wire.hello import READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from arrayhost.client.links import Lease, Link
    from arrayhost.client.ways import UnixWay
    from arrayhost.memory.control import ControlTable
    from arrayhost.sync.filelocks import LockFiles

__all__ = ["close_sessions", "find_link", "forget_sessions", "session_for", "take_over"]


def session_for(
    address: str, authkey: bytes | None = None, wanted: bytes = b"", mode: str = READ_WRITE, tls: Any = None
) -> Session:
    """Return this process's open session with the host at an address; for `wanted` see `Session.open`.

    Parameters
    ----------
    authkey, tls
        As for `arrayhost.connect`; None for what this process used last at this address.

    Raises
    ------
    HostGoneError, NotAuthorizedError
    """
    with registry.lock:
        known_sessions = list(registry.by_address.values())
    for other in known_sessions:
        other.retire_if_ended()
    with registry.lock:
        session = registry.by_address.get((address, mode))
    spare = None
    if session is None or not session.way.serves(authkey, tls):
        session = Session(way_to(address, authkey, tls), mode)
        session.open(wanted)
        if session.is_remote:
            # Beside a session that maps the host's arrays: whoever names this address wants to use it.
            with registry.lock:
                registry.by_address[address, mode] = session
                registry.links.setdefault((session.host_id, mode), session)
            return session
        with registry.lock:
            known = registry.links.get((session.host_id, mode))
            if isinstance(known, Session) and not (known.closed or known.is_remote or known is session):
                # The same host was reached before. Two sessions would map its arrays twice.
                spare, session = session, known
            registry.by_address[address, mode] = session
            registry.links[session.host_id, mode] = session
    if spare is not None:
        spare.closed = True
        spare.disconnect()
    session.open()
    return session


def take_over(way: UnixWay, host_id: bytes, table: ControlTable, files: LockFiles, leases: Sequence[Lease]) -> None:
    """In a process that was forked from a host: make a session the way to that host for the proxies inherited."""
    session = Session(way)
    session.inherit(host_id, table, files, leases)
    with registry.lock:
        registry.links[host_id, session.mode] = registry.by_address[way.address, session.mode] = session


def find_link(
    address: str,
    host_id: bytes,
    wanted: bytes = b"",
    mode: str = READ_WRITE,
    elsewhere: Sequence[str] = (),
    authkey: bytes | None = None,
    tls: Any = None,
) -> Link:
    """Return this process's link to the host that a handle names; see `session_for`.

    Parameters
    ----------
    elsewhere : sequence of str
        TCP addresses of the host, tried in turn where it does not answer at `address`: on another machine.

    Raises
    ------
    HostGoneError
        That host has ended, even if another listens at its address.
    NotAuthorizedError, ProtocolError
        Only a TCP address answers, and this process lacks its key or its certificates.
    """
    for link in (registry.by_address.get((address, mode)), registry.links.get((host_id, mode))):
        if link is not None and link.host_id == host_id and not getattr(link, "closed", False):
            return link
    missed: list[Exception] = []
    for way in (address, *elsewhere):
        try:
            session = session_for(
                way, authkey, wanted if way == address else b"", mode, tls if way == address else None
            )
        except (TransportError, NotAuthorizedError) as error:
            missed.append(error)
            if way == address and not _is_nowhere(error):
                break  # a host that is here and cannot answer now is not to be talked to without its memory
        else:
            if session.host_id == host_id:
                return session
            missed.append(HostGoneError(f"the host at {way} is another one now; arrays of the old one are gone"))
    # What can be mended from here comes first: a key that is missing, rather than a host that is not.
    told = next((miss for miss in missed if not isinstance(miss, HostGoneError)), missed[0])
    for miss in missed:
        if miss is not told:
            told.add_note(f"also tried: {miss}")
    raise told


def _is_nowhere(error: Exception) -> bool:
    """Whether an address leads to no host of this user's on this machine."""
    return isinstance(error, NotAuthorizedError) or isinstance(
        error.__cause__, (ConnectionRefusedError, FileNotFoundError)
    )


def close_sessions(host_id: bytes) -> None:
    """Hang up on a host that has ended, in every mode."""
    for session in list(registry.sessions):
        if session.host_id == host_id:
            session.close()


def forget_sessions() -> None:
    """Drop every session: in a new host, whose parent's arrays are none of its business."""
    for session in list(registry.sessions):
        session.close()
    with registry.lock:
        registry.links.clear()
        registry.by_address.clear()


# The sessions that were prepared for the fork under way.
_forking: list[Session] = []


def _before_fork() -> None:
    for session in sorted(registry.sessions, key=id):
        session.before_fork()
        _forking.append(session)
    registry.lock.acquire()
    for session in _forking:
        session.keep_leases()


def _after_fork_in_parent() -> None:
    registry.lock.release()
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    registry.renew_lock()
    _forking.clear()
    for session in list(registry.sessions):
        session.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
