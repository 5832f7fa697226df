"""The watchdog: ends a test that takes too long, with everybody's stacks, and lets the run go on."""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import IO, Any

import pytest

from tests.support.census import standing_helpers
from tests.support.processes import abort_all, descendants

# Not SIGALRM, which tests and the library may want for themselves.
_SIGNAL = signal.SIGRTMAX - 2


class WatchdogExpired(pytest.fail.Exception):
    """The test ran too long.

    No Exception, so that no ``except Exception`` in the code under test swallows it; and an outcome of pytest's, which
    otherwise would not go on with a teardown that it comes in, and fail all tests that follow.
    """


class Watchdog:
    """A thread that waits until the armed time is over; then it dumps, kills, and interrupts the main thread.

    It dumps this process's stacks, ends the processes started since it was armed (those with faulthandler print
    theirs), and raises WatchdogExpired in the main thread, by a signal because that wakes it from a blocking call. If
    it cannot run, since some C code holds the interpreter lock, faulthandler's own timer still dumps a little later,
    and pytest-timeout ends the run.

    Parameters
    ----------
    stream : file with a descriptor
        Where stacks go: the real stderr, since the captured one is lost if the run has to be ended.
    """

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._seconds = 0.0
        self._before: set[tuple[int, int]] = set()
        self._is_stopping = False
        self._is_interruptible = False
        self._has_expired = False
        self._old_handler = signal.signal(_SIGNAL, self._raise)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def arm(self, seconds: float) -> None:
        """From now on, `seconds` until disarmed."""
        before = {(info.pid, info.start) for info in descendants()}
        with self._condition:
            self._before = before
            self._seconds = seconds
            self._deadline = time.monotonic() + seconds
            self._has_expired = False
            self._condition.notify()
        faulthandler.dump_traceback_later(seconds + 5.0, file=self._stream)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """In this block the main thread may be interrupted; elsewhere the exception would hit pytest itself."""
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False

    def check(self) -> None:
        """Raise WatchdogExpired if it has expired: the main thread may have gone on when its children were killed."""
        with self._condition:
            if self._has_expired:
                raise self._error()

    def disarm(self) -> bool:
        """End the watch; True if it had expired."""
        faulthandler.cancel_dump_traceback_later()
        with self._condition:
            self._deadline = None
            return self._has_expired

    def stop(self) -> None:
        """End the thread and give the signal back."""
        self.disarm()
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        self._thread.join()
        signal.signal(_SIGNAL, self._old_handler)

    def _run(self) -> None:
        with self._condition:
            while not self._is_stopping:
                if self._deadline is None:
                    self._condition.wait()
                elif (left := self._deadline - time.monotonic()) > 0:
                    self._condition.wait(left)
                else:
                    self._deadline = None
                    self._has_expired = True
                    # Holding the condition: disarm() in the main thread waits, so the signal never hits the next test.
                    self._expire()

    def _expire(self) -> None:
        print(f"\nwatchdog: {self._seconds:g} s are over; all stacks:", file=self._stream, flush=True)
        faulthandler.dump_traceback(file=self._stream)
        spared, _ = standing_helpers()
        news = [
            info
            for info in descendants()
            if (info.pid, info.start) not in self._before and info.pid not in spared and not info.is_zombie
        ]
        for info in news:
            print(f"watchdog: ending {info}", file=self._stream, flush=True)
        abort_all(info.pid for info in news)
        signal.pthread_kill(threading.main_thread().ident, _SIGNAL)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._is_interruptible:
            raise self._error()

    def _error(self) -> WatchdogExpired:
        return WatchdogExpired(f"{self._seconds:g} s are over; stacks and processes were written to stderr")


def real_stderr() -> IO[str]:
    """A copy of stderr as it is now, for use when pytest has put its capture in its place."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
