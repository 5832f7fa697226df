"""A host in a process of its own: started by a manager, and ended with it or with this process."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from arrayhost.client.finding import close_sessions, session_for
from arrayhost.errors import ArgumentEncodingError, HostGoneError
from arrayhost.hosting import HostOptions, process_began, run_host
from arrayhost.wire.addresses import LOCAL_PREFIX, remove_socket
from arrayhost.wire.frames import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from arrayhost.client.session import Session
    from arrayhost.host.objects import Registration

__all__ = ["check_importable", "end_host", "own_address", "start_host"]

_START_TIMEOUT = 60.0


def own_address() -> str:
    """Make the address of a host that nobody gave one: a new name that leaves no file behind."""
    return f"{LOCAL_PREFIX}@arrayhost-{os.getpid()}-{secrets.token_hex(8)}"


def start_host(
    ctx: Any,
    name: str,
    registry: Mapping[str, Registration],
    options: HostOptions,
    own: Callable[[Any, Session, tuple[str, ...]], None],
    *,
    initializer: Callable[..., Any] | None = None,
    initargs: Sequence[Any] = (),
    shutdown_timeout: float = 5.0,
) -> None:
    """Start a host in a process of its own, and hand it over to whoever answers for it.

    Parameters
    ----------
    ctx : multiprocessing context
    name : str
        The process's name.
    registry : mapping
        What its clients may create.
    options : HostOptions
    own : callable
        Called with the process, a session with it and its TCP ports when it serves. From its return on, `end_host` is
        its owner's business; if it raises, the process is ended here.
    initializer, initargs
        Called in the host before it serves.
    shutdown_timeout : float
        Seconds that it has to end by itself if starting it fails.

    Raises
    ------
    HostGoneError
        It ended while it started.
    Exception
        What it raised while it started: OSError if the address is taken.
    """
    reader, writer = ctx.Pipe(duplex=False)
    parent = (os.getpid(), process_began(os.getpid()))
    host = ctx.Process(
        target=run_host, args=(dict(registry), options, writer, parent, initializer, initargs), name=name
    )
    owned = False
    try:
        try:
            with _interrupts_deferred():
                host.start()
            writer.close()
            answer = reader.recv() if reader.poll(_START_TIMEOUT) else None
        except EOFError:
            answer = None
        finally:
            writer.close()
            reader.close()
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            host.join(shutdown_timeout)
            raise HostGoneError(f"the host ended while it started (exit status {host.exitcode}); see its output above")
        address, ports = answer
        session = session_for(address, options.authkey if options.needs_key else None)
        with _interrupts_deferred():
            own(host, session, ports)
            owned = True
    finally:
        # After Ctrl-C too: nobody else knows of this process.
        if not owned:
            _end_process(host, shutdown_timeout)


def check_importable(ctx: Any, what: Mapping[str, Any]) -> None:
    """Under spawn and forkserver everything registered has to be pickled: say what cannot, and why.

    Parameters
    ----------
    ctx : multiprocessing context
    what : mapping
        Objects that the new process needs, by what to call them.

    Raises
    ------
    ArgumentEncodingError
    """
    method = ctx.get_start_method()
    if method == "fork":
        return
    for name, value in what.items():
        try:
            ForkingPickler.dumps(value)
            if getattr(value, "__module__", None) == "__main__" and not _is_main_a_file():
                raise ImportError("the main program is no file that a new process could import")
        except Exception as error:  # whatever a user's __reduce__ raises
            raise ArgumentEncodingError(
                f"{name}: {value!r} cannot be passed to a host started by {method!r} ({error}); define it at the "
                "top level of a module that can be imported, or use the 'fork' start method"
            ) from error


def end_host(host: Any, session: Session, timeout: float) -> None:
    """Stop a host: ask, then tell, then force."""
    try:
        if host.is_alive():
            with contextlib.suppress(ConnectionError, OSError):
                session.request(Kind.SHUTDOWN, None, timeout=timeout)
            host.join(timeout)
    finally:
        # After Ctrl-C, too: there is no second call of this.
        _end_process(host, timeout)
        close_sessions(session.host_id)
        # A host that was killed could not do it.
        remove_socket(session.address)


def _end_process(host: Any, timeout: float) -> None:
    """End a process that may have ended already, and let go of it."""
    if host.is_alive():
        host.terminate()
        host.join(timeout)
    if host.is_alive():
        host.kill()
    if host.pid is not None:
        host.join()
    host.close()


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the section.

    A process that was forked when its number had not been noted yet could be neither ended nor waited for. To block
    the signal would not do: it would reach another thread, and a new process would inherit that it is blocked.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # it raises nothing here
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _is_main_a_file() -> bool:
    """Whether new processes find this one's main program: not that of ``python -c``, a notebook or a prompt."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return getattr(main, "__spec__", None) is not None or (file is not None and os.path.exists(file))
