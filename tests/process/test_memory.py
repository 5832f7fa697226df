"""What hosting takes of memory, on huge pages and without, and what is refused before it is taken."""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostMemoryError
from arrayhost.host.server import Server
from arrayhost.memory.budget import free_bytes
from tests.support import run_python, wait_until

MIB = 1024 * 1024
# 2 GB where that is free three times over, for a caller's own array, its copy and the tests beside this one.
SIZE = 2000 * MIB if free_bytes().n_bytes > 8000 * MIB else 200 * MIB


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        yield running


def resident(pid: int) -> int:
    """Bytes of a process that only it keeps in memory, or keeps with others."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


def peak(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def risen(pids: list[int], action: Callable[[], Any]) -> tuple[list[int], Any]:
    """By how much each process's peak rose above what it had resident before."""
    for pid in pids:
        wait_until(lambda pid=pid: resident(pid) < SIZE // 4 or pid == os.getpid(), what="the last array to be freed")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts anew
    before = [peak(pid) for pid in pids]
    result = action()
    return [peak(pid) - old for pid, old in zip(pids, before, strict=True)], result


def made_twice(n: int) -> np.ndarray:
    return np.full(n, 3.0)


@pytest.mark.slow
def test_peaks_of_creating_hosting_and_running(manager: ArrayManager) -> None:
    """Host and client are looked at separately: pages that both have mapped stand in both their figures."""
    n = SIZE // 8
    me, host = os.getpid(), manager.statistics().pid
    for what, create in (
        ("ones", lambda: manager.ones(n)), ("zeros", lambda: manager.zeros(n)),
        ("full", lambda: manager.full(n, 3.0)), ("empty", lambda: manager.empty(n)),
    ):  # fmt: skip
        (client, server), a = risen([me, host], create)
        print(f"{what} of {SIZE // MIB} MiB: host {server / SIZE:.3f} x, client {client / SIZE:.3f} x its size")
        assert server <= 1.05 * SIZE
        assert client <= 0.05 * SIZE
        assert server >= 0.9 * SIZE, "the pages are there on return"
        del a
    own = np.ones(n)
    (client, server), a = risen([me, host], partial(manager.array, own))
    print(f"hosting an ndarray: client {client / SIZE:.3f} x besides its own, host {server / SIZE:.3f} x")
    assert client <= 1.05 * SIZE
    assert server <= 0.05 * SIZE, "the client's copy becomes the segment"
    assert a[-1] == 1
    del a, own
    (client, server), a = risen([me, host], lambda: manager.run(made_twice, n))
    print(f"another callable's result: host {server / SIZE:.3f} x, client {client / SIZE:.3f} x")
    assert server <= 2.05 * SIZE
    assert client <= 0.05 * SIZE
    assert a[-1] == 3


def huge_kib(pid: int) -> int:
    """Kilobytes of arrays' segments on huge pages in a process."""
    parts = Path(f"/proc/{pid}/smaps").read_text().split("memfd:arrayhost:array")[1:]
    lines = [line for part in parts for line in part.splitlines() if line.startswith("ShmemPmdMapped")]
    return sum(int(line.split()[1]) for line in lines)


@pytest.mark.parametrize("switch", ["1", "0"])
def test_huge_pages_in_host_and_client_and_without(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv("ARRAYHOST_HUGE_PAGES", switch)
    with ArrayManager() as manager:
        a = manager.ones(50_000_000)
        assert a.sum() == a.size
        found = {"host": huge_kib(manager.statistics().pid), "client": huge_kib(os.getpid())}
        print(f"ARRAYHOST_HUGE_PAGES={switch}: ShmemPmdMapped in KiB of {a.nbytes // 1024}: {found}")
        if switch == "0":
            assert found == {"host": 0, "client": 0}
        elif tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 1):  # MADV_COLLAPSE
            # Best effort: on fragmented memory the kernel may stop half-way.
            assert min(found.values()) * 1024 >= a.nbytes // 2


def test_more_than_is_free_is_refused_by_client_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's files are those of a group with little left; both processes read them anew each time."""
    from arrayhost.memory import budget

    monkeypatch.setattr(budget, "free_bytes", lambda: budget.Free(100 * MIB, "the control group /tight"))
    with ArrayManager() as manager:  # forked: the host sees the same
        for attempt in (
            lambda: manager.ones(50 * MIB // 8), lambda: manager.array(np.ones(50 * MIB // 8)),
            lambda: manager.run(np.arange, 50 * MIB // 8), lambda: manager.zeros((50, MIB), "u1").copy(),
        ):  # fmt: skip
            with pytest.raises(HostMemoryError, match=r"needs 50\.0 MiB and the control group /tight has 36\.0 MiB"):
                attempt()
        assert manager.statistics().n_arrays == 0
        assert manager.ones(20 * MIB // 8).sum() == 20 * MIB // 8


def test_many_small_ones_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from arrayhost.memory import budget

    allowed = 200 * MIB
    taken = {"bytes": 0}
    monkeypatch.setattr(budget, "free_bytes", lambda: budget.Free(allowed - taken["bytes"], "the control group /tight"))
    claims = budget._Claims()
    with pytest.raises(HostMemoryError):
        for _ in range(1000):
            claims.add(MIB)
            claims.end(MIB)
            taken["bytes"] += MIB
    # The reserve of 64 MiB was not touched by more than what may go unseen.
    assert allowed - 70 * MIB <= taken["bytes"] <= allowed - 60 * MIB


LIMITED = """
    import resource
    import numpy as np
    from arrayhost import ArrayManager, HostMemoryError

    if __name__ == "__main__":
        with ArrayManager() as manager:
            small = manager.ones(3)
            for kind, limit, text in (
                (resource.RLIMIT_AS, int(open("/proc/self/statm").read().split()[0]) * 4096 + 200 * 2**20, "ulimit -v"),
                (resource.RLIMIT_FSIZE, 50 * 2**20, "ulimit -f"),
            ):
                before = resource.getrlimit(kind)
                values = np.broadcast_to(np.float64(1), (300 * 2**20 // 8,))
                resource.setrlimit(kind, (limit, before[1]))
                try:
                    manager.array(values)
                except HostMemoryError as error:
                    print(error)
                    assert text in str(error) and error.need_bytes >= 300 * 2**20 > error.free_bytes
                else:
                    raise AssertionError(text)
                finally:
                    resource.setrlimit(kind, before)
                small[0] = 5
                assert small[0] == 5
"""


def test_limits_of_the_process_itself() -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    print(run_python(LIMITED).stdout)


def test_what_was_dropped_just_before_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    # The host's loop hears of a dropped array on one socket, while a thread is asked for the next one on another.
    hear = Server._hear_leases
    monkeypatch.setattr(Server, "_hear_leases", lambda *args: (time.sleep(0.02), hear(*args)))
    with ArrayManager(ctx=multiprocessing.get_context("fork"), max_bytes=10 * MIB) as manager:
        for _ in range(5):
            a = manager.ones(6 * MIB // 8)
            del a
            b = manager.array(np.ones(6 * MIB // 8))
            del b
        kept = manager.ones(6 * MIB // 8)
        with pytest.raises(HostMemoryError, match="max_bytes"):
            manager.ones(6 * MIB // 8)
        assert kept.sum() == 6 * MIB // 8


def test_max_bytes_holds_for_whatever_makes_an_array() -> None:
    with ArrayManager(max_bytes=10 * MIB) as manager:
        kept = manager.ones(6 * MIB // 8)
        values = np.ones(5 * MIB // 8)
        for attempt in (
            lambda: manager.ones(5 * MIB // 8), lambda: manager.array(values), lambda: manager.run(np.copy, values),
            lambda: manager.__setitem__("name", values), lambda: manager.run(np.arange, 5 * MIB // 8),
        ):  # fmt: skip
            with pytest.raises(HostMemoryError, match="max_bytes"):
                attempt()
        assert manager.statistics().n_bytes == 6 * MIB
        assert list(manager) == []
        del kept
        assert manager.array(values).sum() == values.size
