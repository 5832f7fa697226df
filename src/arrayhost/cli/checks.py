"""What this machine has to have for hosting: tried, not looked up, wherever trying is harmless."""

from __future__ import annotations

import fcntl
import os
import platform
import resource
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arrayhost.errors import ArrayHostError, format_bytes
from arrayhost.manager import connect
from arrayhost.memory._libc import MADV_COLLAPSE, PROT_READ, PROT_WRITE, madvise, map_shared, unmap
from arrayhost.memory.budget import free_bytes
from arrayhost.memory.control import ORDERED_STORES
from arrayhost.memory.segments import HUGE_PAGE
from arrayhost.standing import runtime_folder
from arrayhost.sync.filelocks import EXCLUSIVE, create_lock_files, lock_request, try_lock
from arrayhost.wire.addresses import socket_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAILS", "FINE", "WARNS", "Finding", "run_checks"]

FINE, WARNS, FAILS = "fine", "warning", "fails"
_OLDEST_KERNEL = (5, 4)
_FEW_FILES = 4096
_FEW_MAPPINGS = 65_530
_LITTLE_MEMORY = 1 << 30
_LONGEST_PATH = 107  # bytes of a Unix socket's name, without the zero at its end


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes
    ----------
    check : str
    state : {"fine", "warning", "fails"}
    found : str
    remedy : str
        What would fail and how to mend it; empty where all is fine.
    """

    check: str
    state: str
    found: str
    remedy: str = ""


def run_checks(address: str) -> list[Finding]:
    """Run every check; `address` is that of the host in question."""
    return [check() for check in _CHECKS] + [_address(address), _host(address)]


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_KERNEL:
        return Finding("kernel", FAILS, release, "hosting needs Linux 5.4 or newer (pidfd_open): upgrade the kernel")
    return Finding("kernel", FINE, f"Linux {release}")


def _processor() -> Finding:
    machine = platform.machine()
    if ORDERED_STORES:
        return Finding("processor", FINE, machine)
    return Finding("processor", WARNS, machine, "reads go through copies that the host makes: correct, but slower")


def _memfd() -> Finding:
    try:
        fd = os.memfd_create("arrayhost:doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        return Finding("memfd", FAILS, str(error), "arrays live in memory files: allow memfd_create in the sandbox")
    try:
        os.ftruncate(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Finding("memfd", FAILS, str(error), "memory files must be sealed and opened anew: mount /proc")
    finally:
        os.close(fd)
    return Finding("memfd", FINE, "memory files can be made, sealed and opened anew")


def _locks() -> Finding:
    files = create_lock_files()
    try:
        first, second = files.take(0), files.take(0)
        request = lock_request(0, EXCLUSIVE)
        if try_lock(first.fd, request) and not try_lock(second.fd, request):
            return Finding("locks", FINE, "open-file-description locks exclude each other")
        found = "two holders have the same lock"
    except OSError as error:
        found = str(error)
    return Finding("locks", FAILS, found, "sections need F_OFD_SETLK, which this kernel or sandbox does not give")


def _pidfd() -> Finding:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Finding("pidfd", FAILS, str(error), "a host watches its starter by pidfd_open: allow it in the sandbox")
    return Finding("pidfd", FINE, "the end of a process can be watched")


def _huge_pages() -> Finding:
    if os.environ.get("ARRAYHOST_HUGE_PAGES", "1") == "0":
        return Finding("huge pages", WARNS, "ARRAYHOST_HUGE_PAGES=0", "large arrays are read slower: unset it")
    fd = os.memfd_create("arrayhost:doctor", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, HUGE_PAGE)
        address = map_shared(HUGE_PAGE, PROT_READ | PROT_WRITE, fd, HUGE_PAGE)
        try:
            os.pwrite(fd, b"\1", 0)
            number = madvise(address, HUGE_PAGE, MADV_COLLAPSE)
        finally:
            unmap(address, HUGE_PAGE)
    finally:
        os.close(fd)
    setting = _text("/sys/kernel/mm/transparent_hugepage/shmem_enabled") or "no transparent huge pages"
    if number == 0:
        return Finding("huge pages", FINE, f"MADV_COLLAPSE works (shmem_enabled: {setting})")
    return Finding(
        "huge pages", WARNS, f"MADV_COLLAPSE: {os.strerror(number)} (shmem_enabled: {setting})",
        "large arrays are read up to 1.6 times slower: Linux 6.1 or newer has it; memory may also be fragmented",
    )  # fmt: skip


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_limit(soft)}, up to {_limit(hard)}"
    if hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        return Finding("open files", WARNS, found, "a host keeps a file open for each large array: raise 'ulimit -Hn'")
    return Finding("open files", FINE, found)


def _mappings() -> Finding:
    text = _text("/proc/sys/vm/max_map_count")
    if text.isdigit() and int(text) < _FEW_MAPPINGS:
        remedy = "a process can map fewer large arrays: sysctl vm.max_map_count=262144"
        return Finding("mappings", WARNS, text, remedy)
    return Finding("mappings", FINE, text or "unknown")


def _memory() -> Finding:
    free = free_bytes()
    found = f"{format_bytes(free.n_bytes)} free, bounded by {free.limit}"
    if free.n_bytes < _LITTLE_MEMORY:
        return Finding("memory", WARNS, found, "larger arrays are refused: end other programs, or raise that limit")
    return Finding("memory", FINE, found)


def _runtime_folder() -> Finding:
    check = "runtime folder"
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder:
        remedy = "programs with another environment look elsewhere: set XDG_RUNTIME_DIR for all of them"
        return Finding(check, WARNS, f"XDG_RUNTIME_DIR is not set; {runtime_folder()} is used", remedy)
    path = Path(folder)
    try:
        about = path.stat()
    except OSError as error:
        remedy = "the standing host has no place: create the folder, mode 0700, or set XDG_RUNTIME_DIR"
        return Finding(check, FAILS, f"{folder}: {error.strerror}", remedy)
    if about.st_uid != os.geteuid() or not os.access(path, os.W_OK | os.X_OK):
        remedy = "the standing host has no place: set XDG_RUNTIME_DIR to a folder of yours"
        return Finding(check, FAILS, f"{folder} belongs to user {about.st_uid}", remedy)
    mode = stat.S_IMODE(about.st_mode)
    if mode & 0o022:
        return Finding(check, WARNS, f"{folder}, mode {mode:04o}", f"others may write there: chmod 700 {folder}")
    return Finding(check, FINE, folder)


def _address(address: str) -> Finding:
    name = socket_name(address)
    if name[0] != "\0" and len(os.fsencode(name)) > _LONGEST_PATH:
        remedy = f"a socket's path has at most {_LONGEST_PATH} bytes: give --address, or a shorter XDG_RUNTIME_DIR"
        return Finding("address", FAILS, address, remedy)
    return Finding("address", FINE, address)


def _host(address: str) -> Finding:
    try:
        statistics = connect(address).statistics()
    except (ArrayHostError, OSError) as error:
        return Finding("host", FINE, f"none runs ({' '.join(str(error).split())})")
    found = f"process {statistics.pid} answers: {statistics.n_arrays} arrays, {format_bytes(statistics.n_bytes)}"
    return Finding("host", FINE, found)


def _limit(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else str(value)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


_CHECKS: tuple[Callable[[], Finding], ...] = (
    _kernel, _processor, _memfd, _locks, _pidfd, _huge_pages, _open_files, _mappings, _memory, _runtime_folder,
)  # fmt: skip
