"""The ceiling: a bound on this process's private memory while it runs code whose need nobody can foresee.

The memory of a new hosted array is claimed before it is made (`arrayhost.memory.budget`). What ``np.tile`` or a user's
function takes for itself is not asked for anywhere: beyond what is free the kernel would give it all the same, and kill
the process when it is used. So while such code runs, the process's own limit (RLIMIT_DATA: heap and private mappings,
not the shared memory of arrays) stands at what it has plus what is free, and an allocation beyond that fails.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import threading
import time
from pathlib import Path

from arrayhost.errors import format_bytes
from arrayhost.memory.budget import refused, usable

__all__ = ["ceiling", "explained"]

# For how many seconds a look at the free memory is good: for what begins, and, in the end, for what goes on running.
# A call may run for hours, because it waits for something.
_FRESH_SECONDS = 0.1
_LONGEST_SECONDS = 2.0
# Above what is in use there is always this much, as `usable` holds back: the stacks of new threads count whole, 8 MiB
# each, although hardly any of it is ever used.
_LEAST_BYTES = 64 * 1024 * 1024
_INFINITE = resource.RLIM_INFINITY


class _Ceiling:
    """The bound of this process.

    Attributes
    ----------
    until : float
        Monotonic seconds at which `again` or `lift` is due; 0 while there is none.

    Notes
    -----
    Safety: any thread. The limit is the whole process's: what other threads allocate meanwhile counts, too.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self._fresh_until = 0.0
        self._pause = _FRESH_SECONDS
        self._lock = threading.Lock()
        self._before = _INFINITE
        self._set = _INFINITE

    def keep(self) -> bool:
        """See to it that there is a fresh one; tell whether it was set. Cost: a look at the clock, in most cases."""
        if time.monotonic() < self._fresh_until:
            return False
        self._renew(_FRESH_SECONDS)
        return True

    def again(self) -> None:
        """Renew it for what goes on running."""
        self._renew(min(2 * self._pause, _LONGEST_SECONDS))

    def _renew(self, pause: float) -> None:
        """Set it to what is in use plus what is free now."""
        try:
            most = _private_bytes() + max(usable().n_bytes, _LEAST_BYTES)
        except OSError:  # no descriptor to look with, which is no reason to refuse what may need no memory
            now = time.monotonic()
            self._fresh_until = now + _FRESH_SECONDS
            self.until = now + pause if self.until else 0.0
            return
        with self._lock:
            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            if not self.until or soft != self._set:
                self._before = soft  # the user's own, if there is one
            limits = [bound for bound in (most, self._before, hard) if bound != _INFINITE]
            self._set = min(limits)
            now = time.monotonic()
            # Before the limit is set: a child that is forked in between must know of it.
            self._pause, self._fresh_until, self.until = pause, now + _FRESH_SECONDS, now + pause
            resource.setrlimit(resource.RLIMIT_DATA, (self._set, hard))

    def lift(self, until: float) -> None:
        """Take it away, unless it was renewed since it was good `until` then, or somebody else set the limit."""
        with self._lock:
            if self.until != until or not until:
                return
            self.until = self._fresh_until = 0.0
            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            if soft == self._set:
                resource.setrlimit(resource.RLIMIT_DATA, (self._before, hard))

    def after_fork_in_child(self) -> None:
        """Take it away: the child is not the one that keeps it fresh."""
        self._lock = threading.Lock()
        self.lift(self.until)


ceiling = _Ceiling()
os.register_at_fork(after_in_child=ceiling.after_fork_in_child)


def explained(error: MemoryError) -> MemoryError:
    """Say of an allocation that failed in this process how much was needed and how much there is, if that is known.

    Returns
    -------
    MemoryError
        A `HostMemoryError` in the place of NumPy's error, else `error` itself with a note.
    """
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    try:
        if isinstance(shape, tuple) and dtype is not None:
            need = math.prod(shape) * dtype.itemsize
            found = refused(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), need)
            return found if isinstance(found, MemoryError) else error
        if type(error) is MemoryError and not hasattr(error, "__notes__"):
            free = usable()
            error.add_note(f"Raised in the host; {free.limit} has {format_bytes(free.n_bytes)} free")
    except OSError:
        pass  # no descriptor to look with
    return error


def _private_bytes() -> int:
    """What RLIMIT_DATA bounds."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
