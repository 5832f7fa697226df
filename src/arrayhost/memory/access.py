"""Descriptors for those who may only read: the same file, opened anew without the right to write."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["to_send"]


@contextlib.contextmanager
def to_send(fds: Sequence[int], *, read_only: bool) -> Iterator[Sequence[int]]:
    """Give the descriptors that a peer is to be sent: `fds` themselves, or read-only ones that end with the block.

    Through /proc: a dup would share the file description, and with it the right to write.
    """
    if not read_only:
        yield fds
        return
    opened: list[int] = []
    try:
        for fd in fds:
            opened.append(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401  # closed if one fails
        yield opened
    finally:
        for fd in opened:
            os.close(fd)
