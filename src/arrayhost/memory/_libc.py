"""The libc calls that Python lacks: ``mmap`` at a chosen address, ``munmap``, ``madvise``; futexes; ``malloc_trim``.

Python's own :mod:`mmap` can neither choose an address nor map without keeping a duplicate descriptor.
"""

from __future__ import annotations

import ctypes
import mmap as _mmap
import os
import platform
import sys
import time

from arrayhost.errors import UnsupportedPlatformError

__all__ = ["MADV_COLLAPSE", "MADV_DONTNEED", "PROT_NONE", "PROT_READ", "PROT_WRITE", "futex_wait", "futex_wake",
           "keep_heap_small", "madvise", "map_fixed", "map_shared", "trim_heap", "unmap"]  # fmt: skip

PROT_NONE = 0
PROT_READ = _mmap.PROT_READ
PROT_WRITE = _mmap.PROT_WRITE
MADV_DONTNEED = _mmap.MADV_DONTNEED
MADV_COLLAPSE = 25  # Linux 6.1; the mmap module does not name it yet
_MAP_SHARED = 0x01
_MAP_PRIVATE = 0x02
_MAP_FIXED = 0x10
_MAP_ANONYMOUS = 0x20
_MAP_NORESERVE = 0x4000
_FUTEX_WAIT = 0  # without FUTEX_PRIVATE_FLAG: between processes
_FUTEX_WAKE = 1
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
_EVERYBODY = 2**31 - 1
_MAP_FAILED = ctypes.c_void_p(-1).value


def _load() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise UnsupportedPlatformError(
            f"hosting arrays needs Linux (sealed memory files, open-file-description locks); this is {sys.platform}"
        )
    # CDLL, not PyDLL: a collapse or an unmap of gigabytes must not keep the interpreter's lock.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.syscall.restype = ctypes.c_long
    libc.syscall.argtypes = (
        ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_uint32,
    )  # fmt: skip
    return libc


_libc = _load()
_mmap_call = _libc.mmap
_munmap_call = _libc.munmap
_madvise_call = _libc.madvise
_system_call = _libc.syscall
_M_ARENA_MAX = -8
_N_ARENAS = 2
_option_call = getattr(_libc, "mallopt", None)  # other C libraries have neither this nor the next one
_trim_call = getattr(_libc, "malloc_trim", None)
_futex_number = _FUTEX_NUMBERS.get(platform.machine())


def _check_address(address: int | None) -> int:
    if address is None or address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return address


def map_shared(n_bytes: int, prot: int, fd: int, alignment: int = 1) -> int:
    """Map the first `n_bytes` of a file at an address that is a multiple of `alignment`; return the address."""
    if alignment <= 1:
        return _check_address(_mmap_call(None, n_bytes, prot, _MAP_SHARED, fd, 0))
    # Reserve too much, map over the aligned part, give the ends back: no other thread can take the range meanwhile.
    reserved = n_bytes + alignment
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
    start = _check_address(_mmap_call(None, reserved, PROT_NONE, flags, -1, 0))
    aligned = -(-start // alignment) * alignment
    try:
        map_fixed(aligned, n_bytes, prot, fd)
    except OSError:
        unmap(start, reserved)
        raise
    page = _mmap.PAGESIZE
    if aligned > start:
        unmap(start, aligned - start)
    end = aligned + -(-n_bytes // page) * page
    if start + reserved > end:
        unmap(end, start + reserved - end)
    return aligned


def map_fixed(address: int, n_bytes: int, prot: int, fd: int) -> None:
    """Map a file over a reserved range."""
    _check_address(_mmap_call(address, n_bytes, prot, _MAP_SHARED | _MAP_FIXED, fd, 0))


def unmap(address: int, n_bytes: int) -> None:
    """Unmap a range; never raises, since it runs when objects die."""
    _munmap_call(address, n_bytes)


def madvise(address: int, n_bytes: int, advice: int) -> int:
    """Call ``madvise``; return 0 or the error number."""
    return 0 if _madvise_call(address, n_bytes, advice) == 0 else ctypes.get_errno()


def keep_heap_small() -> None:
    """Have this process's threads share the C library's arenas, for a process whose threads come and go.

    By default there are eight for each processor, and what a thread frees stays in the one it happened to use: under
    some hundred thousand short connections a host's heap grew to twice its size, and with two arenas it did not grow.
    """
    if _option_call is not None:
        _option_call(_M_ARENA_MAX, _N_ARENAS)


def trim_heap() -> None:
    """Give memory that ``free`` has kept for later back to the system. Cost: about 0.1 ms, and what it gives back."""
    if _trim_call is not None:
        _trim_call(0)


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]  # as ctypes wants it


def futex_wait(address: int, expected: int, seconds: float) -> None:
    """Sleep until the 32-bit word at an address is woken; not if it is not `expected`, and not beyond a signal."""
    if _futex_number is None:
        time.sleep(min(seconds, 1e-3))
        return
    limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
    _system_call(_futex_number, address, _FUTEX_WAIT, expected, ctypes.byref(limit), None, 0)


def futex_wake(address: int) -> None:
    """Wake all who sleep on the word at an address, in all processes."""
    if _futex_number is not None:
        _system_call(_futex_number, address, _FUTEX_WAKE, _EVERYBODY, None, None, 0)
