"""The links of this process to hosts: by host and mode, and by address and mode.

A process may read from a host with one session and write with another.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrayhost.client.links import Link
    from arrayhost.client.session import Session

__all__ = ["by_address", "forget", "links", "lock", "register_link", "renew_lock", "sessions"]

links: dict[tuple[bytes, str], Link] = {}
by_address: dict[tuple[str, str], Session] = {}
sessions: weakref.WeakSet[Session] = weakref.WeakSet()
# Taken after a session's own lock where both are needed.
lock = threading.RLock()


def register_link(link: Link) -> None:
    """Let pickled handles of a host find their way by this link."""
    with lock:
        links.setdefault((link.host_id, link.mode), link)


def forget(session: Session) -> None:
    """Let nobody find a session any more."""
    with lock:
        if by_address.get((session.address, session.mode)) is session:
            del by_address[session.address, session.mode]
        if links.get((session.host_id, session.mode)) is session:
            del links[session.host_id, session.mode]


def renew_lock() -> None:
    """In a forked child: another thread may have held the lock, which nobody would give back here."""
    global lock
    lock = threading.RLock()
