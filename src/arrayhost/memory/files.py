"""Files that are there whole or not at all: written under another name, made durable, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["NO_ROOM", "replaced", "replaced_folder", "reserve", "save_npy", "sync_folder"]

_PIECE_BYTES = 16 * 1024 * 1024
# What the kernel says where a file cannot grow: the disk, a quota or a limit of this process's is full.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replaced(file: Path, prefix: str = "") -> Iterator[Path]:
    """Yield a file of another name in the same folder, which takes the file's place at the end if all went well.

    That name begins with `prefix`, or with a dot and the file's own name. Whoever has the old file open keeps it.
    After a crash at any moment the old one is there or the new one; a file of the other name may be left, hidden, and
    can be removed.

    Raises
    ------
    OSError
        What the block raises, with a text that names the file where there is no room.
    """
    fd, name = tempfile.mkstemp(prefix=prefix or f".{file.stem[:40]}-", suffix=file.suffix[:20], dir=file.parent)
    os.close(fd)
    path = Path(name)
    try:
        yield path
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(path, 0o666 & ~umask)  # as if it had been opened in the usual way
        with open(path, "rb") as written:
            os.fsync(written.fileno())
        os.replace(path, file)
        sync_folder(file.parent)
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        text = f"{os.strerror(error.errno)}: {file.name} cannot be written, and is as it was"
        raise OSError(error.errno, text, str(file)) from error
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """As `replaced`, for a folder with all that is written into it; an older one must be empty."""
    path = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}-", dir=folder.parent))
    try:
        yield path
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(path, 0o777 & ~umask)
        sync_folder(path)
        os.rename(path, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def reserve(fd: int, n_bytes: int, file: Path) -> None:
    """Take a file's room before anything is written to it.

    Raises
    ------
    OSError
        ENOSPC, EDQUOT or EFBIG, with a text that names need and room.
    """
    try:
        os.posix_fallocate(fd, 0, n_bytes)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        usage = os.fstatvfs(fd)
        free = usage.f_bavail * usage.f_frsize
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)}: this needs {format_bytes(n_bytes)}, the file system has {format_bytes(free)} "
            "free (and 'ulimit -f' may allow less); nothing was changed",
            str(file),
        ) from error


def save_npy(file: Path, array: npt.NDArray[Any]) -> None:
    """Write an ndarray in NumPy's format, whole or not at all.

    Raises
    ------
    OSError
        There is no room for it, or the folder cannot be written to; the old file is as it was.
    """
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    about = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": fortran, "shape": array.shape}
    with replaced(file) as path, open(path, "r+b") as target:
        np.lib.format.write_array_header_2_0(target, about)
        reserve(target.fileno(), target.tell() + array.nbytes, file)
        straight = array.T if fortran else array
        _write_elements(target, straight)


def _write_elements(target: Any, array: npt.NDArray[Any]) -> None:
    """Write an array's elements in C order; only pieces of one that is not contiguous are copied."""
    if not array.size:
        return
    n = max(_PIECE_BYTES // array.dtype.itemsize, 1)
    if array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _PIECE_BYTES):
            target.write(flat[start : start + _PIECE_BYTES].data)
        return
    for start in range(0, array.size, n):
        target.write(array.flat[start : start + n].tobytes())
