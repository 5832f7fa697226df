"""Other processes that run functions on demand, and never outlive their ``with`` block."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from types import TracebackType

SPAWN = multiprocessing.get_context("spawn")

REPLY_TIMEOUT = 60.0
EXIT_TIMEOUT = 5.0


class Worker:
    """A spawned process that runs one function at a time.

    The functions must be importable. Importing their module happens before they run, so it is never part of what they
    time. This module does not import arrayhost.
    """

    def __init__(self) -> None:
        self._connection, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Process id."""
        pid = self._process.pid
        assert pid is not None
        return pid

    def send(self, function: Callable[..., Any], *args: Any) -> None:
        """Have ``function(*args)`` run; do not wait."""
        self._connection.send((function, args))

    def result(self, timeout: float = REPLY_TIMEOUT) -> Any:
        """Return what the function sent last returned, or raise RuntimeError with its traceback."""
        if not self._connection.poll(timeout):
            raise TimeoutError(f"worker {self.pid} has not answered within {timeout:g} s")
        ok, value = self._connection.recv()
        if not ok:
            raise RuntimeError(f"in a worker process:\n{value}")
        return value

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function(*args)`` in the worker and return its result."""
        self.send(function, *args)
        return self.result()

    def close(self) -> None:
        """End the process: by closing its pipe, and if that is not enough by killing it."""
        self._connection.close()
        self._process.join(EXIT_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(EXIT_TIMEOUT)

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent is the one to clean up
    while True:
        try:
            function, args = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            reply = (True, function(*args))
        except Exception:
            reply = (False, traceback.format_exc())
        try:
            connection.send(reply)
        except BrokenPipeError:  # nobody waits for the result any more
            return
