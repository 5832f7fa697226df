"""Being a standing host: signals, systemd, the end of what still runs. For the shell and for programs."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from arrayhost.hosting import HostOptions, build_server
from arrayhost.memory._libc import keep_heap_small
from arrayhost.memory.descriptors import raise_soft_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from arrayhost.host.objects import Registration
    from arrayhost.host.server import Server

__all__ = ["LOG_FORMAT", "make_server", "notify", "serve", "serve_detached", "terminated_after"]

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
DRAIN_SECONDS = 10.0


def make_server(address: str, registry: Mapping[str, Registration] | None = None, **options: Any) -> Server:
    """Make the server of a standing host; it listens from here on.

    Parameters
    ----------
    address : str
    registry : mapping, optional
        Types that its clients may create.
    **options
        As `HostOptions`.

    Raises
    ------
    OSError
        The address is taken or cannot be listened on.
    """
    raise_soft_limit()
    keep_heap_small()
    # The kernel tells which clients are this user's; who presents a key must have come for another host.
    options.setdefault("authkey", os.urandom(32))
    return build_server(registry or {}, HostOptions(address=address, **options))


def serve(server: Server, *, drain_seconds: float = DRAIN_SECONDS, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM, SIGINT or a client's request to stop; requests that run are finished first.

    Parameters
    ----------
    server : Server
    drain_seconds : float
        At most so long; a second signal ends it at once.
    ready : callable, optional
        Called when the first client could be served.

    Notes
    -----
    For the main thread. Tells systemd of its start and end where ``NOTIFY_SOCKET`` is set.
    """
    server.drain_seconds = drain_seconds
    signalled: list[int] = []

    def end(number: int) -> None:
        if signalled:
            server.stop()
        else:
            signalled.append(number)
            notify("STOPPING=1")
            server.drain(drain_seconds)

    with _handled(end, signal.SIGTERM, signal.SIGINT):
        notify(f"READY=1\nMAINPID={os.getpid()}")
        if ready is not None:
            ready()
        server.serve_forever()
        if not signalled:
            notify("STOPPING=1")


@contextlib.contextmanager
def terminated_after(stop: Callable[[], None]) -> Iterator[None]:
    """Where SIGTERM would end the process at once, have it call `stop` first, and end the process after the block."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    came: list[int] = []

    def end(number: int) -> None:
        came.append(number)
        stop()

    try:
        with _handled(end, signal.SIGTERM):
            yield
    finally:
        if came:
            signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _handled(act: Callable[[int], None], *numbers: signal.Signals) -> Iterator[None]:
    """Have signals call `act` in this process; one that it forks has the handlers from before."""
    pid = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() == pid:
            act(number)
        else:  # a child that has not come to putting them back, or in which another handler calls this one
            signal.signal(number, before[number])
            signal.raise_signal(number)

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in numbers}
    replaced = (handle, before)
    _replaced.append(replaced)
    try:
        yield
    finally:
        if replaced in _replaced:  # not in a forked child
            _replaced.remove(replaced)
        _put_back(*replaced)


# Handlers of ours, and those from before them, by the signal's number; the innermost last.
_replaced: list[tuple[Callable[[int, Any], None], dict[int, Any]]] = []


def _put_back(handle: Callable[[int, Any], None], before: dict[int, Any]) -> None:
    for number, handler in before.items():
        # Hosted code may have put a handler of its own in the place of ours.
        if signal.getsignal(number) is handle:
            signal.signal(number, handler)


def _after_fork_in_child() -> None:
    # At once, and not when a signal comes: Python 3.13 may call no handler in a child that a thread has forked.
    while _replaced:
        _put_back(*_replaced.pop())


os.register_at_fork(after_in_child=_after_fork_in_child)


def notify(state: str) -> None:
    """Tell systemd about the state of this service, if it asked to be told: see sd_notify(3)."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name[:1] not in ("/", "@"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + name[1:] if name[0] == "@" else name)
            channel.sendall(state.encode())
    except OSError as error:
        log.warning("cannot tell the service manager %r: %s", state, error)


def serve_detached(about: str) -> None:
    """Be the host that `standing.start_detached` starts."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    given = json.loads(about)
    channel = given["ready_fd"]
    try:
        server = make_server(given["address"])
    except OSError as error:
        # Somebody else was quicker: then there is a host, which is what was asked for.
        told = "ready" if error.errno == errno.EADDRINUSE else str(error).replace("\n", " ")
        os.write(channel, f"{told}\n".encode())
        return

    def ready() -> None:
        os.write(channel, b"ready\n")
        os.close(channel)

    serve(server, ready=ready)
