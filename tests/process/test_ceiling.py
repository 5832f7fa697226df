"""What code in the host may allocate: what is free, and no more; told before the kernel would kill."""

import ctypes
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostMemoryError
from arrayhost.memory import budget
from tests.support import wait_until

MIB = 1024 * 1024
FREE = 164 * MIB


def hoard(n_bytes: int) -> int:
    return len(bytearray(n_bytes))


def n_arenas() -> list[int]:
    """Count the heaps of the C library in this process."""
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    with tempfile.NamedTemporaryFile() as file:
        stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        return [Path(file.name).read_text().count("<heap nr=")]


def limit_in_a_child() -> list[int]:
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, resource.getrlimit(resource.RLIMIT_DATA)[0].to_bytes(8, "little", signed=True))
        os._exit(0)
    os.wait()
    with open(reader, "rb") as file:
        os.close(writer)
        return [int.from_bytes(file.read(), "little", signed=True)]


class Hoarder:
    """Takes memory and keeps it."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, n_bytes: int) -> int:
        self.kept.append(np.ones(n_bytes, np.uint8))
        return len(self.kept)

    def scatter(self) -> None:
        """Take and free memory in pieces that the C library keeps: too small to be mapped one by one."""
        pieces = [np.ones(15_000) for _ in range(600)]
        self.kept = pieces[::60]
        del pieces

    def exhaust(self) -> None:
        """Leave this process no descriptor."""
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, self.limits[1]))

    def relax(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)

    def wait(self) -> int:
        before = resource.getrlimit(resource.RLIMIT_DATA)[0]
        deadline = time.monotonic() + 10
        while (now := resource.getrlimit(resource.RLIMIT_DATA)[0]) == before and time.monotonic() < deadline:
            self.kept.append(bytes(64 * 1024))
            time.sleep(0.01)
        return now - before


class Arrays(ArrayManager):
    """A host in a control group with little left."""


Arrays.register("Hoarder", Hoarder)
Arrays.register("tiled", np.tile)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arrays]:
    """The kernel's files are made up; what the kernel does at the limit is not."""
    monkeypatch.setattr(budget, "free_bytes", lambda: budget.Free(FREE, "the control group /tight"))
    with Arrays() as running:
        yield running


def soft_limit(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_DATA)[0]


def peak(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


ATTEMPTS: dict[str, Callable[[Arrays, Any, Any], Any]] = {
    "arange": lambda manager, a, hoarder: manager.arange(200 * MIB // 8),
    "linspace": lambda manager, a, hoarder: manager.linspace(0, 1, 200 * MIB // 8),
    "run(np.tile)": lambda manager, a, hoarder: manager.run(np.tile, np.ones(MIB // 8), 200),
    "run(np.repeat)": lambda manager, a, hoarder: manager.run(np.repeat, np.ones(MIB // 8), 200),
    "registered": lambda manager, a, hoarder: manager.tiled(a, 200),
    "np.tile(a.on_host)": lambda manager, a, hoarder: np.tile(a.on_host, 200),
    "a.on_host.repeat": lambda manager, a, hoarder: a.on_host.repeat(200),
    "np.add.outer": lambda manager, a, hoarder: np.add.outer(a[:200].on_host, a.on_host),
    "broadcast": lambda manager, a, hoarder: a[:200, None].on_host + a.on_host,
    "apply": lambda manager, a, hoarder: a.apply(np.tile, 200),
    "method": lambda manager, a, hoarder: hoarder.keep(200 * MIB),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_more_than_is_free_is_refused_with_need_free_and_remedy(manager: Arrays, name: str) -> None:
    a, hoarder = manager.ones(MIB // 8), manager.Hoarder()
    pid = manager.statistics().pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak(pid)
    with pytest.raises(
        HostMemoryError, match=r"needs 200\.0 MiB and the control group /tight has .* free; drop"
    ) as told:
        ATTEMPTS[name](manager, a, hoarder)
    assert told.value.need_bytes == 200 * MIB
    assert told.value.free_bytes <= FREE
    assert peak(pid) - before < 20 * MIB
    assert a.sum() == a.size
    assert hoarder.keep(50 * MIB) == 1


def test_what_is_no_array_is_told_with_what_is_free(manager: Arrays) -> None:
    with pytest.raises(MemoryError) as told:
        manager.run(hoard, 200 * MIB)
    assert "the control group /tight has 100.0 MiB free" in "".join(told.value.__notes__)
    assert manager.run(hoard, 50 * MIB)._getvalue() == 50 * MIB


def test_the_bound_goes_when_nothing_runs(manager: Arrays) -> None:
    pid = manager.statistics().pid
    before = soft_limit(pid)
    a = manager.arange(10)
    assert soft_limit(pid) != before
    wait_until(lambda: soft_limit(pid) == before, what="the bound to go")
    a[0] = 5  # what takes no memory needs no bound
    assert soft_limit(pid) == before


def test_the_bound_is_renewed_while_something_runs(manager: Arrays) -> None:
    assert manager.Hoarder().wait() > 0


def test_a_child_forked_in_the_host_is_not_bound(manager: Arrays) -> None:
    before = soft_limit(manager.statistics().pid)
    assert manager.run(limit_in_a_child)[0] == before


def test_a_bound_of_the_users_own_holds(manager: Arrays) -> None:
    pid = manager.statistics().pid
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    own = int(fields["VmData"].split()[0]) * 1024 + 60 * MIB
    resource.prlimit(pid, resource.RLIMIT_DATA, (own, resource.RLIM_INFINITY))
    with pytest.raises(MemoryError):
        manager.run(np.tile, np.ones(MIB // 8), 800)  # far beyond it: memory of the tests before may be given back now
    assert soft_limit(pid) <= own
    wait_until(lambda: soft_limit(pid) == own, what="the bound to go")


def private(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_what_was_freed_goes_back_to_the_system() -> None:
    with Arrays() as manager:
        hoarder = manager.Hoarder()
        pid = manager.statistics().pid
        before = private(pid)
        hoarder.scatter()
        wait_until(lambda: private(pid) < before + 8 * MIB, what="the host to give 60 MiB back")


def test_a_host_without_descriptors_goes_on_without_a_bound(manager: Arrays) -> None:
    pid = manager.statistics().pid
    before = soft_limit(pid)
    a, hoarder = manager.ones(10), manager.Hoarder()
    hoarder.exhaust()
    try:
        for _ in range(3):
            wait_until(lambda: soft_limit(pid) == before, what="the bound to go")
            assert a.on_host.sum() == 10
            hoarder.keep(MIB)
            time.sleep(0.1)  # and what the host knew of its memory is old
    finally:
        hoarder.relax()
    assert manager.arange(5).sum() == 10


def test_many_threads_share_few_heaps() -> None:
    with Arrays(ctx=get_context("spawn")) as manager:
        hoarders = [manager.Hoarder() for _ in range(12)]
        inside = threading.Barrier(len(hoarders))

        def use(hoarder: Any) -> None:
            hoarder.keep(1)
            inside.wait()
            hoarder.scatter()

        threads = [threading.Thread(target=use, args=(hoarder,)) for hoarder in hoarders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert manager.run(n_arenas)[0] <= 2
