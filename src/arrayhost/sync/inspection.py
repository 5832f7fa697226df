"""Looking at locks from outside: who holds one and who waits. Takes no lock, waits for nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from arrayhost.core.records import LockRecord, WaiterRecord
from arrayhost.memory.control import READER_PID
from arrayhost.sync.filelocks import EXCLUSIVE, blocking_mode
from arrayhost.sync.guards import waiters_of

if TYPE_CHECKING:
    from arrayhost.sync.guards import Guard

__all__ = ["lock_record"]


def lock_record(guard: Guard) -> LockRecord:
    """Ask the kernel for the state of an array's lock. Cost: one system call, no lock taken."""
    file = guard.files.take(guard.slot)
    try:
        mode = blocking_mode(file.fd, guard.exclusive_bytes)
    finally:
        guard.files.give_back(guard.slot, file)
    waiters = tuple(
        WaiterRecord(pid, max(time.monotonic_ns() - since, 0) / 1e9) for pid, since in sorted(waiters_of(guard))
    )
    if mode is None:
        return LockRecord("free", 0, waiters)
    if mode == EXCLUSIVE:
        return LockRecord("exclusive", guard.writer_pid, waiters)
    return LockRecord("shared", guard.words[guard.base + READER_PID], waiters)
