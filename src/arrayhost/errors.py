"""Every error of arrayhost, split by what the caller can do next.

::

    ArrayHostError
    ├── ReferentError      the array or object asked for is not there
    │   ├── ReferentNotFoundError  (KeyError)          no such name or registered type
    │   ├── ReferentExistsError    (ValueError)        that name is taken
    │   └── StaleProxyError        (ReferenceError)    it was there when this proxy was made
    ├── AccessError        you may not, or not from here
    │   ├── NotAuthorizedError     (AuthenticationError)
    │   ├── ReadOnlyError          (ValueError)        you connected with mode="r"
    │   └── NoHostError            (RuntimeError)      this process hosts nothing
    ├── LockError
    │   ├── LockTimeoutError       (TimeoutError)      someone else holds it: the text names whom
    │   ├── LeaseLostError         (RuntimeError)      you held it, and did not renew it in time
    │   └── WouldDeadlock          (RuntimeError)      you would wait for yourself
    ├── TransactionConflictError (RuntimeError)        somebody else wrote meanwhile: try again
    ├── TornArrayError     a writer died in mid-write: recover() or write the whole array
    ├── HostMemoryError    (MemoryError)               more than the machine has free
    ├── DescriptorLimitError (OSError)                 more descriptors than a process may have
    ├── ChunkLostError     a part of an array on a cluster was lost with its worker
    ├── UnsupportedError   arrayhost cannot do this here
    │   ├── GatherLimitError         (MemoryError)     all elements in one place would be too many
    │   ├── UnsupportedDTypeError    (TypeError)
    │   └── UnsupportedPlatformError (OSError)
    ├── TransportError     the conversation with the host failed
    │   ├── HostGoneError          (ConnectionError)   it ended, or was never there
    │   ├── HostBusyError          (ConnectionError)   it is there and takes no more clients
    │   ├── ClusterTimeoutError    (TimeoutError)      a computation did not end in time
    │   ├── ProtocolError                              the peer sent something malformed
    │   └── ArgumentEncodingError  (TypeError)         this value cannot travel to a host
    └── RemoteError        code in the host raised something that could not travel here
"""

from __future__ import annotations

import errno
from multiprocessing import AuthenticationError
from typing import Any

__all__ = [
    "AccessError",
    "ArgumentEncodingError",
    "ArrayHostError",
    "ChunkLostError",
    "ClusterTimeoutError",
    "DescriptorLimitError",
    "GatherLimitError",
    "HostBusyError",
    "HostGoneError",
    "HostMemoryError",
    "LeaseLostError",
    "LockError",
    "LockTimeoutError",
    "NoHostError",
    "NotAuthorizedError",
    "ProtocolError",
    "ReadOnlyError",
    "ReferentError",
    "ReferentExistsError",
    "ReferentNotFoundError",
    "RemoteError",
    "StaleProxyError",
    "TornArrayError",
    "TornArrayWarning",
    "TransactionConflictError",
    "TransportError",
    "UnsupportedDTypeError",
    "UnsupportedError",
    "UnsupportedPlatformError",
    "WouldDeadlock",
    "format_bytes",
]


def format_bytes(n_bytes: int) -> str:
    """Write a size as people read it: ``400 B``, ``381.5 MiB``."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{n_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class ArrayHostError(Exception):
    """Root of every error that arrayhost raises on its own account."""


class ReferentError(ArrayHostError):
    """The array or object is not there."""


class ReferentNotFoundError(ReferentError, KeyError):
    """Nothing is hosted under that name or id (not: it was, and has gone)."""

    __str__ = Exception.__str__  # KeyError would show the text in quotation marks


class ReferentExistsError(ReferentError, ValueError):
    """Something is hosted under that name already."""


class StaleProxyError(ReferentError, ReferenceError):
    """The array or object existed when this proxy was made and does not any more."""


class AccessError(ArrayHostError):
    """The caller may not do this, or not from this process."""


class NotAuthorizedError(AccessError, AuthenticationError):
    """The host and this process do not share a key, or belong to different users."""


class ReadOnlyError(AccessError, ValueError):
    """Something was to be changed by a process that has connected with ``mode="r"``.

    A ValueError as NumPy's for a read-only array, whose words it begins with.
    """

    def __init__(self, what: str = "assignment destination is read-only") -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: this process has connected with mode='r'; connect without it to change anything"


class NoHostError(AccessError, RuntimeError):
    """A function that works inside a host process was called outside of one."""


class LockError(ArrayHostError):
    """A lock could not be had."""


class LockTimeoutError(LockError, TimeoutError):
    """A lock was not free in time.

    Attributes
    ----------
    timeout : float
        Seconds waited.
    holder_pid : int
        The process that held the lock last, 0 if unknown.
    """

    def __init__(self, what: str, timeout: float, holder_pid: int = 0) -> None:
        super().__init__(what, timeout, holder_pid)
        # OSError, which TimeoutError is, takes a third argument for a file's name and drops it from args.
        self.args = (what, timeout, holder_pid)
        self.what, self.timeout, self.holder_pid = what, timeout, holder_pid

    def __str__(self) -> str:
        holder = f"process {self.holder_pid} holds it" if self.holder_pid else "its holder is unknown"
        return (
            f"no {self.what} within {self.timeout:g} s: {holder}; "
            "wait longer with timeout=, or end the section that holds it"
        )


class LeaseLostError(LockError, RuntimeError):
    """A lock on a cluster is a lease, and this one was not renewed in time; what was to be written was not.

    Attributes
    ----------
    seconds : float
        How long a lease is.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"this process did not renew the array's lock within {self.seconds:g} s, because it was stopped or cut "
            "off, and others may have had it; nothing was written: run the section again"
        )


class WouldDeadlock(LockError, RuntimeError):
    """The caller would wait for a lock that it holds itself."""


class TransactionConflictError(ArrayHostError, RuntimeError):
    """An array of a transaction was written to between its begin and its end; nothing of it was done.

    Attributes
    ----------
    expected, found : int
        The array's version at the begin and at the end.
    writer_pid : int
        Who wrote last.
    """

    def __init__(self, expected: int = 0, found: int = 0, writer_pid: int = 0) -> None:
        super().__init__(expected, found, writer_pid)
        self.expected = expected
        self.found = found
        self.writer_pid = writer_pid

    def __str__(self) -> str:
        return (
            f"process {self.writer_pid} has written to an array of this transaction since it began (version "
            f"{self.expected}, now {self.found}); nothing was changed: run it again"
        )


class TornArrayError(ArrayHostError):
    """A process died while it wrote to this array, so old and new values may be mixed.

    Attributes
    ----------
    pid : int
        The process that died, 0 if unknown.
    """

    def __init__(self, pid: int, what: str = "this array") -> None:
        super().__init__(pid, what)
        self.pid, self.what = pid, what

    def __str__(self) -> str:
        return (
            f"{self.what} may hold a half-finished write: process {self.pid} died while writing it; "
            "write the whole array (a[...] = values), or accept what is there with a.recover()"
        )


class TornArrayWarning(RuntimeWarning):
    """The section just entered is on an array whose last writer died in mid-write."""


class HostMemoryError(ArrayHostError, MemoryError):
    """An array would need more memory than is free.

    Attributes
    ----------
    need_bytes, free_bytes : int
    limit : str
        What sets the bound: the machine, a control group, or the host's ``max_bytes``.
    """

    def __init__(self, need_bytes: int, free_bytes: int, limit: str = "this machine") -> None:
        super().__init__(need_bytes, free_bytes, limit)
        self.need_bytes, self.free_bytes, self.limit = need_bytes, free_bytes, limit

    def __str__(self) -> str:
        return (
            f"this needs {format_bytes(self.need_bytes)} and {self.limit} has {format_bytes(self.free_bytes)} free; "
            "drop arrays that are no longer used, choose a smaller dtype or shape, or raise the limit"
        )


class DescriptorLimitError(ArrayHostError, OSError):
    """A process has as many open descriptors as it may, so something could not be opened or received.

    Attributes
    ----------
    what : str
        What was asked for.
    pid : int
        The process at its limit: the caller's own or the host.
    n_open : int
        How many it has.
    limit : str
        Whose limit it is.
    """

    def __init__(self, what: str, pid: int, n_open: int, limit: str = "ulimit -n") -> None:
        super().__init__(what, pid, n_open, limit)
        self.what, self.pid, self.n_open, self.limit = what, pid, n_open, limit
        self.args = (what, pid, n_open, limit)  # OSError keeps two of them
        self.errno = errno.EMFILE

    def __str__(self) -> str:
        return (
            f"no descriptor for {self.what}: {self.limit} has all {self.n_open} that are allowed; raise the limit "
            "(ulimit -n) before that process starts, or drop arrays, files and connections that are no longer used"
        )


class ChunkLostError(ArrayHostError):
    """The worker that had a part of an array has died, and nothing tells how to make that part again.

    What was computed is computed again; what a program has sent is lost, unless the cluster has a directory.
    """


class UnsupportedError(ArrayHostError):
    """Not possible with arrayhost, or not on this system."""


class GatherLimitError(UnsupportedError, MemoryError):
    """An operation needs all elements of arrays on a cluster in one process, and they are many.

    Attributes
    ----------
    what : str
        The operation.
    n_bytes, limit : int
    """

    def __init__(self, what: str, n_bytes: int, limit: int) -> None:
        super().__init__(what, n_bytes, limit)
        self.what, self.n_bytes, self.limit = what, n_bytes, limit

    def __str__(self) -> str:
        return (
            f"{self.what} would bring {format_bytes(self.n_bytes)} from the cluster to this process, and "
            f"{format_bytes(self.limit)} are the limit; ask for it with a.gather() or, for methods, gather=True, or "
            "raise manager.gather_limit"
        )


class UnsupportedDTypeError(UnsupportedError, TypeError):
    """Elements of this dtype hold pointers, which mean nothing in another process."""


class UnsupportedPlatformError(UnsupportedError, OSError):
    """Hosting needs a kernel facility that this system lacks."""


class TransportError(ArrayHostError):
    """Talking to the host failed."""


class HostGoneError(TransportError, ConnectionError):
    """There is no host at that address any more, or none yet.

    Attributes
    ----------
    nothing_sent : bool
        True if the request certainly never reached a host, so that it may be made again. False where the host may have
        carried it out before it ended.
    """

    nothing_sent = False


class HostBusyError(TransportError, ConnectionError):
    """The host is there and serves as many peers as its limit of open files allows.

    Attributes
    ----------
    limit : int
        Peers.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the host serves {self.limit} connections already, half of the files that it may have open; "
            "close some, or start it with a higher limit (ulimit -Hn)"
        )


class ClusterTimeoutError(TransportError, TimeoutError):
    """A computation on a cluster did not end in time.

    Attributes
    ----------
    place : str
        The scheduler.
    seconds : float
        How long it was waited for.
    n_workers : int
        How many workers there are now.
    """

    def __init__(self, place: str, seconds: float, n_workers: int) -> None:
        super().__init__(place, seconds, n_workers)
        self.args = (place, seconds, n_workers)  # OSError would keep two of them
        self.place, self.seconds, self.n_workers = place, seconds, n_workers

    def __str__(self) -> str:
        why = f"it has {self.n_workers} workers" if self.n_workers else "it has no workers"
        return (
            f"the cluster at {self.place} has not finished after {self.seconds:.0f} s: {why}; start workers, or wait "
            "longer with ?timeout= and ?idle= in the address"
        )


class ProtocolError(TransportError):
    """The other side sent bytes that are not a valid message; the connection is dropped."""


class ArgumentEncodingError(TransportError, TypeError):
    """A value cannot be sent to the other side: an argument, or what came of a call in the host.

    Attributes
    ----------
    nothing_sent : bool
        True if it was an argument: the call has not been made.
    """

    nothing_sent = False


class RemoteError(ArrayHostError):
    """Code in the host raised an exception that could not be rebuilt here.

    Attributes
    ----------
    type_name : str
        The exception's class in the host.
    text : str
        Its message.
    """

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name, self.text = type_name, text

    def __str__(self) -> str:
        return f"{self.type_name} in the host: {self.text}"


def errors_by_name() -> dict[str, Any]:
    """Every error class of this module by its name."""
    return {
        name: value
        for name, value in globals().items()
        if isinstance(value, type) and issubclass(value, (ArrayHostError, Warning))
    }
