"""How much memory may still be taken: the machine's, and the control groups' that this process is in.

Asked before each large allocation, since the kernel's own answer comes too late: beyond a control group's limit it
kills, and beyond what a memory file system has it raises SIGBUS.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from arrayhost.errors import HostMemoryError

__all__ = ["Free", "check_free", "free_bytes"]

# Reading the files below takes about 0.1 ms; allocations under this size are not worth it.
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
    if need_bytes < _CHECK_FROM:
        return
    free = free_bytes()
    usable = max(free.n_bytes - _RESERVE, 0)
    if need_bytes > usable:
        raise HostMemoryError(need_bytes, usable, free.limit)


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
