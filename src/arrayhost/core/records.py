"""Records: what a host tells of itself, its arrays and its clients. Immutable values, the same for code and shell."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = [
    "ArrayRecord",
    "ArrayStatistics",
    "ClientRecord",
    "Creator",
    "HolderRecord",
    "HostRecord",
    "HostStatistics",
    "LockRecord",
    "WaiterRecord",
    "array_record",
    "host_record",
    "to_plain",
]


@dataclass(frozen=True, slots=True)
class ArrayStatistics:
    """The state of a hosted array's row in the control table.

    Attributes
    ----------
    slot, generation : int
        The row, and which of its successive arrays this is.
    version : int
        Grows by 2 with each completed write.
    writing : bool
        Whether somebody writes at this moment.
    torn : bool
        Whether a writer died in mid-write.
    torn_pid : int
        That writer.
    writer_pid : int
        Who holds, or held last, the exclusive lock.
    """

    slot: int
    generation: int
    version: int
    writing: bool
    torn: bool
    torn_pid: int
    writer_pid: int


@dataclass(frozen=True, slots=True)
class Creator:
    """Who made an array, as the kernel told the host.

    Attributes
    ----------
    pid : int
    user : str
        The user's name, or number where the system knows no name.
    program : str
        The process's command line, shortened.
    """

    pid: int
    user: str
    program: str


@dataclass(frozen=True, slots=True)
class HolderRecord:
    """A process that keeps an array alive.

    Attributes
    ----------
    pid : int
    program : str
    n_leases : int
    """

    pid: int
    program: str
    n_leases: int


@dataclass(frozen=True, slots=True)
class WaiterRecord:
    """Somebody who waits for an array's lock.

    Attributes
    ----------
    pid : int
    seconds : float
        How long so far.
    """

    pid: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LockRecord:
    """The state of an array's lock.

    Attributes
    ----------
    mode : {"free", "shared", "exclusive"}
    owner_pid : int
        Who has it; of several readers the one that came last. 0 if it is free.
    waiters : tuple of WaiterRecord
        Everybody whose request waits in the host and, of those who wait for a section in their own process, the one
        that has waited longest.
    """

    mode: str
    owner_pid: int
    waiters: tuple[WaiterRecord, ...]


@dataclass(frozen=True, slots=True)
class ArrayRecord:
    """One hosted array.

    Attributes
    ----------
    names : tuple of str
        Empty for one that lives by its holders alone.
    shape : tuple of int
    dtype : str
        As `str` of the dtype.
    order : {"C", "F", ""}
    nbytes : int
        Of the elements.
    segment_bytes : int
        Of memory, padding to whole pages included.
    statistics : ArrayStatistics
        Its row of the control table; ``a.statistics()`` is the same.
    lock : LockRecord
    holders : tuple of HolderRecord
    attrs : dict
    created : float
        Seconds since 1970.
    creator : Creator
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    order: str
    nbytes: int
    segment_bytes: int
    statistics: ArrayStatistics
    lock: LockRecord
    holders: tuple[HolderRecord, ...]
    attrs: dict[str, Any]
    created: float
    creator: Creator


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A process that is connected to a host.

    Attributes
    ----------
    pid : int
    user, program : str
    connected : float
        Seconds since 1970.
    n_connections : int
        Its threads that have made requests.
    n_requests : int
        Answered so far. Reads of mapped memory are none.
    n_arrays : int
        Arrays and objects of which it has leases.
    """

    pid: int
    user: str
    program: str
    connected: float
    n_connections: int
    n_requests: int
    n_arrays: int


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """What a host holds, and for whom.

    Attributes
    ----------
    pid : int
    n_arrays, n_objects : int
        Referents.
    n_bytes : int
        Of all arrays together.
    n_names, n_leases, n_sessions, n_connections : int
    n_slots : int
        Rows of the control table in use, with those that could not be reused yet.
    n_requests : int
        Answered since the host started.
    max_bytes : int or None
        The bound that the host was given.
    started : float
        Seconds since 1970.
    """

    pid: int
    n_arrays: int
    n_objects: int
    n_bytes: int
    n_names: int
    n_leases: int
    n_sessions: int
    n_connections: int
    n_slots: int
    n_requests: int
    max_bytes: int | None
    started: float


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host, with everything that it holds and everybody who is connected.

    Attributes
    ----------
    host : HostStatistics
    arrays : tuple of ArrayRecord
        In the order of creation, those without a name too.
    clients : tuple of ClientRecord
    """

    host: HostStatistics
    arrays: tuple[ArrayRecord, ...]
    clients: tuple[ClientRecord, ...]


def to_plain(record: Any) -> dict[str, Any]:
    """Turn a record into dicts, lists and plain values: for the wire, and for JSON."""
    return asdict(record)


def array_record(plain: dict[str, Any]) -> ArrayRecord:
    """Rebuild an `ArrayRecord` from `to_plain`."""
    values = {field.name: plain[field.name] for field in fields(ArrayRecord)}
    lock = plain["lock"]
    waiters = tuple(WaiterRecord(**waiter) for waiter in lock["waiters"])
    values |= {
        "names": tuple(plain["names"]),
        "shape": tuple(plain["shape"]),
        "statistics": ArrayStatistics(**plain["statistics"]),
        "lock": LockRecord(lock["mode"], lock["owner_pid"], waiters),
        "holders": tuple(HolderRecord(**holder) for holder in plain["holders"]),
        "creator": Creator(**plain["creator"]),
    }
    return ArrayRecord(**values)


def host_record(plain: dict[str, Any]) -> HostRecord:
    """Rebuild a `HostRecord` from `to_plain`."""
    return HostRecord(
        HostStatistics(**plain["host"]),
        tuple(array_record(one) for one in plain["arrays"]),
        tuple(ClientRecord(**one) for one in plain["clients"]),
    )
