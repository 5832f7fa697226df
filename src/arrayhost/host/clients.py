"""Who a host's clients are, and for which of them this thread of the host works."""

from __future__ import annotations

import functools
import os
import pwd
import threading
from pathlib import Path

from arrayhost.core.records import Creator
from arrayhost.sync.guards import caller_is

__all__ = ["current_client", "describe_process", "user_name", "work_for"]

_MAX_PROGRAM = 200


def describe_process(pid: int, uid: int) -> Creator:
    """Describe a process by what the kernel says of it now; of one in another container that is its user only."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        words = []
    program = " ".join(word.decode(errors="replace") for word in words)
    shown = "".join(letter if letter.isprintable() else "?" for letter in program)
    return Creator(pid, user_name(uid), shown if len(shown) <= _MAX_PROGRAM else f"{shown[: _MAX_PROGRAM - 3]}...")


def user_name(uid: int) -> str:
    """Return a user's name, or number where the system knows no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class _Thread(threading.local):
    client: Creator | None = None


_thread = _Thread()


def work_for(client: Creator) -> None:
    """Note that the calling thread works for a client from now on: what it makes is that client's."""
    _thread.client = client
    caller_is(client.pid)


def current_client() -> Creator:
    """Return the client that the calling thread works for; the host itself outside of a client's thread."""
    return _thread.client or _this_process(os.getpid())


@functools.lru_cache(maxsize=1)
def _this_process(pid: int) -> Creator:
    return describe_process(pid, os.geteuid())
