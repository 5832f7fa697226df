"""How much memory may still be taken: the machine's, and the control groups' that this process is in.

Asked before memory is allocated, since the kernel's own answer comes too late: beyond a control group's limit it
kills, and beyond what a memory file system has it raises SIGBUS. Threads that allocate at the same time count what the
others are about to take; other processes are left a reserve.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arrayhost.errors import HostMemoryError
from arrayhost.memory.descriptors import descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Free", "check_free", "claimed", "free_bytes", "refused", "usable"]

# Reading the files below takes about 0.1 ms: too much for each small allocation, so these are added up until their sum
# is worth it.
_CHECK_FROM = 4 * 1024 * 1024
# What must stay free for everything else.
_RESERVE = 64 * 1024 * 1024
_NO_LIMIT = 2**60


class Free(NamedTuple):
    """How much is free, and what sets the bound."""

    n_bytes: int
    limit: str


def free_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Free:
    """Bytes that can be allocated before the kernel starts to kill.

    Parameters
    ----------
    proc, cgroups : Path
        The kernel's file systems; other folders in tests.
    """
    bounds = [Free(_machine(proc), "this machine")]
    bounds += [Free(n_bytes, f"the control group {group}") for group, n_bytes in _groups(proc, cgroups)]
    return min(bounds)


def check_free(need_bytes: int) -> None:
    """Raise `HostMemoryError` unless `need_bytes` more can be allocated."""
    with claimed(need_bytes):
        pass


@contextlib.contextmanager
def claimed(need_bytes: int) -> Iterator[None]:
    """Claim free memory for as long as it takes to allocate it: other threads are told that it is not free any more.

    Raises
    ------
    HostMemoryError
        That much is not free.
    """
    _claims.add(need_bytes)
    try:
        yield
    finally:
        _claims.end(need_bytes)


class _Claims:
    """What this process's threads are about to take, and what they took since free memory was last looked at."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew; in a forked child, where the other threads do not exist."""
        self._lock = threading.Lock()
        self._claimed = 0
        self._unseen = 0

    def add(self, need_bytes: int) -> None:
        with self._lock:
            self._unseen += need_bytes
            if self._unseen >= _CHECK_FROM:
                self._check(need_bytes)
                self._unseen = 0
            self._claimed += need_bytes

    def end(self, need_bytes: int) -> None:
        with self._lock:
            self._claimed -= need_bytes

    def _check(self, need_bytes: int) -> None:
        free = self.usable()
        if need_bytes > free.n_bytes:
            raise HostMemoryError(need_bytes, free.n_bytes, free.limit)

    def usable(self) -> Free:
        with descriptor_limit("a look at how much memory is free"):
            free = free_bytes()
        return Free(max(free.n_bytes - _RESERVE - self._claimed, 0), free.limit)


_claims = _Claims()
os.register_at_fork(after_in_child=_claims.forget)


def usable() -> Free:
    """How much this process may take now: what is free, less a reserve and what its threads are about to take."""
    return _claims.usable()


def refused(error: OSError, need_bytes: int) -> Exception:
    """What to raise where the kernel refused memory in time, which is where a limit of this process's own is reached.

    Returns
    -------
    Exception
        `error` itself where it is about something else.
    """
    if error.errno == errno.EFBIG:
        soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return HostMemoryError(need_bytes, max(soft, 0), "one file of this process (ulimit -f)")
    if error.errno not in (errno.ENOMEM, errno.ENOSPC):
        return error
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    mapped_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if soft != resource.RLIM_INFINITY and mapped_bytes + need_bytes > soft - _RESERVE:
        return HostMemoryError(need_bytes, max(soft - mapped_bytes, 0), "this process's address space (ulimit -v)")
    if len(Path("/proc/self/maps").read_text().splitlines()) >= _max_mappings():
        return HostMemoryError(need_bytes, 0, "this process's table of mappings (sysctl vm.max_map_count)")
    free = usable()
    return HostMemoryError(need_bytes, max(min(free.n_bytes, need_bytes - 1), 0), free.limit)


def _max_mappings() -> int:
    return int(Path("/proc/sys/vm/max_map_count").read_text()) - 10


def _machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _NO_LIMIT


def _groups(proc: Path, cgroups: Path) -> list[tuple[str, int]]:
    """Name and free bytes of every control group above this process that limits memory."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be the host's and not exist here; the root is then the group's own folder.
        parts = path.strip("/").split("/") if path.strip("/") else []
        for depth in range(len(parts), -1, -1):
            folder = root.joinpath(*parts[:depth])
            free = _group_free(folder, *names)
            if free is not None:
                found.append((str(folder), free))
    return found


def _group_free(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    try:
        limit = (folder / limit_name).read_text().strip()
        usage = int((folder / usage_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max" or int(limit) >= _NO_LIMIT:
        return None
    # Cached file pages that nobody used lately are given back before anything is killed.
    return int(limit) - usage + int(stat.get(cache_name, 0))
