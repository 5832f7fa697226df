"""A small file system of a process's own, for what happens when a disk is full."""

import ctypes
import os
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def mount_small_disk(folder: Path | str, size: str) -> bool:
    """Mount a tmpfs of this size for the calling process and those it starts; False where that is not allowed.

    A user other than root needs a user namespace, which a process with threads cannot make: call it before anything is
    imported that has some.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNS):
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
            return False
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        except OSError:
            return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        return False
    return not libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode())
