"""The libc calls that Python lacks: ``mmap`` at a chosen address, ``munmap``, ``madvise`` on it.

Python's own :mod:`mmap` can neither choose an address nor map without keeping a duplicate descriptor.
"""

from __future__ import annotations

import ctypes
import mmap as _mmap
import os
import sys

from arrayhost.errors import UnsupportedPlatformError

__all__ = ["MADV_COLLAPSE", "PROT_NONE", "PROT_READ", "PROT_WRITE", "madvise", "map_fixed", "map_shared", "unmap"]

PROT_NONE = 0
PROT_READ = _mmap.PROT_READ
PROT_WRITE = _mmap.PROT_WRITE
MADV_COLLAPSE = 25  # Linux 6.1; the mmap module does not name it yet
_MAP_SHARED = 0x01
_MAP_PRIVATE = 0x02
_MAP_FIXED = 0x10
_MAP_ANONYMOUS = 0x20
_MAP_NORESERVE = 0x4000
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
    return libc


_libc = _load()
_mmap_call = _libc.mmap
_munmap_call = _libc.munmap
_madvise_call = _libc.madvise


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
