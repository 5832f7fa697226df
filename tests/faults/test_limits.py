"""Calls of the kernel that fail at the N-th time: a typed error for who asked, everything as before, and it goes on."""

import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayHostError, ArrayManager
from arrayhost.memory import _libc
from tests.faults.harness import count, nothing_left, report, shared_words
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.watchdog(120)]

# Which call is to fail, and at which time from now on: seen by this process and by a host that is forked from it.
WHICH, COUNTDOWN, FAILED = range(3)


def _failing(words: np.ndarray, which: int, real: Any, fail: Callable[[], Any]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if words[WHICH] == which:
            words[COUNTDOWN] -= 1
            if words[COUNTDOWN] == 0:
                words[WHICH] = 0
                words[FAILED] += 1
                return fail()
        return real(*args, **kwargs)

    return call


def _raise(number: int) -> Callable[[], Any]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def _fail_to_map() -> Any:
    import ctypes

    ctypes.set_errno(errno.ENOMEM)
    return ctypes.c_void_p(-1).value


CALLS: list[tuple[Any, str, Callable[[], Any]]] = [
    (os, "memfd_create", _raise(errno.EMFILE)),
    (os, "ftruncate", _raise(errno.ENOSPC)),  # as on a full file system
    (os, "posix_fallocate", _raise(errno.ENOSPC)),
    (_libc, "_mmap_call", _fail_to_map),
    (os, "fchmod", _raise(errno.EPERM)),
    (os, "open", _raise(errno.EMFILE)),
    (socket.socket, "sendmsg", _raise(errno.ENOBUFS)),
]


def _doings(manager: ArrayManager, kept: Any) -> list[Callable[[], Any]]:
    big = np.arange(100_000.0)
    return [
        lambda: manager.ones(100).sum(),
        lambda: manager.ones(400_000).sum(),
        lambda: manager.array(big).sum(),
        lambda: kept.__setitem__(slice(None), big),
        lambda: kept.copy().sum(),
        lambda: manager.run(np.zeros, 300_000).sum(),
        lambda: manager["kept"].sum(),
    ]


@pytest.mark.parametrize("where", ["host", "client"])
def test_a_call_that_fails_at_the_nth_time(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shared_words(3)
    for which, (module, name, fail) in enumerate(CALLS, 1):
        monkeypatch.setattr(module, name, _failing(words, which, getattr(module, name), fail))
    with ArrayManager() as manager:
        if where == "host":
            monkeypatch.undo()  # the host keeps what it was forked with
        manager["kept"] = np.zeros(100_000)
        kept = manager["kept"]
        doings = _doings(manager, kept)
        for do in doings:
            do()
        wait_until(lambda: manager.statistics().n_arrays == 1, what="what was only tried to be freed")
        errors: list[str] = []
        with nothing_left(manager):
            for which in range(1, len(CALLS) + 1):
                for nth in range(1, count(3, 8)):
                    for do in doings:
                        words[COUNTDOWN], words[WHICH] = nth, which
                        try:
                            do()
                        except (ArrayHostError, OSError, MemoryError) as error:
                            errors.append(type(error).__name__)
                        words[WHICH] = 0
                    for do in doings:
                        do()
    monkeypatch.undo()
    assert words[FAILED] > len(CALLS)
    told = ", ".join(sorted(set(errors)))
    report(f"  {int(words[FAILED])} calls of the kernel failed in the {where}: {len(errors)} errors ({told}), 0 leaks")


def test_a_host_at_its_limit_of_address_space() -> None:
    with ArrayManager() as manager:
        pid = manager.statistics().pid
        kept = manager.ones(1000)
        with open(f"/proc/{pid}/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        with nothing_left(manager):
            resource.prlimit(pid, resource.RLIMIT_AS, (used + (64 << 20), before[1]))
            with pytest.raises(MemoryError):
                manager.ones(40_000_000)
            assert kept.sum() == 1000
            resource.prlimit(pid, resource.RLIMIT_AS, before)
            assert manager.ones(40_000_000)[-1] == 1


def test_a_client_at_its_limit_of_descriptors() -> None:
    with ArrayManager() as manager:
        kept = manager.ones(1000)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with nothing_left(manager):
            lowest = os.dup(0)  # the next descriptor would have this number
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
            try:
                for _ in range(3):
                    with pytest.raises((ArrayHostError, OSError)):
                        manager.array(np.ones(1_000_000))
                assert kept.sum() == 1000
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert manager.array(np.ones(1_000_000)).sum() == 1_000_000
