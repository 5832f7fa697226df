"""How many descriptors this process may have, and what it says when it has them."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import TYPE_CHECKING

from arrayhost.errors import DescriptorLimitError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["at_limit", "descriptor_limit", "raise_soft_limit"]


def raise_soft_limit() -> None:
    """Raise this process's soft limit of open descriptors to the hard one, which needs no privilege."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def at_limit(what: str, number: int = errno.EMFILE) -> DescriptorLimitError:
    """The error for something that could not be opened or received.

    Parameters
    ----------
    what : str
    number : int
        EMFILE if this process is at its limit, ENFILE if the whole machine is.
    """
    if number == errno.ENFILE:
        return DescriptorLimitError(what, os.getpid(), _machine_limit(), "the machine (fs.file-max)")
    # At the limit the folder of this process's descriptors cannot be listed either; the limit is what is open.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DescriptorLimitError(what, os.getpid(), soft, f"process {os.getpid()} (ulimit -n)")


@contextlib.contextmanager
def descriptor_limit(what: str) -> Iterator[None]:
    """Turn the kernel's refusal of another descriptor into `DescriptorLimitError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or isinstance(error, DescriptorLimitError):
            raise
        raise at_limit(what, error.errno) from error


def _machine_limit() -> int:
    try:
        with open("/proc/sys/fs/file-max") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
