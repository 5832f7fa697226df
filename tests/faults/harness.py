"""The fault harness: victims that are killed at random points, what a host has before and after, how much is done.

Every scenario is a function of a `Run`. The tests call it as it is; `test_switched_off.py` calls it with one mechanism
of arrayhost switched off, and it must fail. ``make faults`` sets ARRAYHOST_FAULTS=long for the full counts.
"""

import faulthandler
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from arrayhost import ArrayManager
from arrayhost.sync.filelocks import MAX_IDLE, N_LOCK_FILES
from tests.support import Watchdog, is_running, wait_until

IS_LONG = os.environ.get("ARRAYHOST_FAULTS") == "long"
# One round of any scenario takes milliseconds; longer than this it hangs.
ROUND_SECONDS = 10.0 if IS_LONG else 30.0


_PIECE_BYTES = 1 << 20
# A shared segment of small arrays; there are larger ones where there are many.
_SEGMENT_BYTES = 1 << 20


def count(short: int, long: int) -> int:
    """How often to do something: a few times in every test run, the full number in ``make faults``."""
    return long if IS_LONG else short


@dataclass
class Run:
    """One scenario's circumstances.

    Attributes
    ----------
    n : int
        Rounds.
    rng : random.Random
        Decides what happens when.
    watchdog : Watchdog
        Dumps every stack and ends the test if a round does not end.
    """

    n: int
    rng: random.Random
    watchdog: "Watchdog | FreshProcess"

    def rounds(self) -> Iterator[int]:
        """Count the rounds, each under a watchdog of its own."""
        for k in range(self.n):
            self.watchdog.arm(ROUND_SECONDS)
            yield k
        self.watchdog.arm(60.0)

    def pause(self, longest: float) -> None:
        """Sleep until a random point."""
        time.sleep(self.rng.random() * longest)


def report(text: str) -> None:
    """Print figures; in a long run also to the file that ARRAYHOST_FAULTS_REPORT names."""
    print(text, flush=True)
    if IS_LONG and (path := os.environ.get("ARRAYHOST_FAULTS_REPORT")):
        with open(path, "a") as file:
            file.write(text + "\n")


class Victim:
    """A forked process that runs `work` until it is killed.

    Parameters
    ----------
    work : callable
        Called with the arguments; the process ends with status 0 if it returns and 1, with a traceback, if it raises.
    """

    def __init__(self, work: Callable[..., object], *args: Any) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _be_victim(work, args)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for its end; return its status, negative for a signal."""
        status = wait_until(lambda: _ended(self.pid), timeout=timeout, what=f"the end of process {self.pid}")
        self.pid = 0
        return os.waitstatus_to_exitcode(status[1])

    def end(self) -> None:
        """Kill it if it lives, and reap it."""
        if self.pid:
            self.kill()
            self.signal(signal.SIGCONT)
            self.wait()


def _ended(pid: int) -> tuple[int, int] | None:
    found = os.waitpid(pid, os.WNOHANG)
    return found if found[0] else None


def _be_victim(work: Callable[..., object], args: tuple[Any, ...]) -> NoReturn:
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        work(*args)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Not back into the test, whose frames lie below.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@contextmanager
def victims() -> Iterator[list[Victim]]:
    """A list of victims; whoever is left in it ends with the block."""
    alive: list[Victim] = []
    try:
        yield alive
    finally:
        for victim in alive:
            victim.end()


def shared_words(n: int) -> np.ndarray:
    """Zeros of int64 that this process and its forks share, and that a SIGKILL does not take back."""
    return np.frombuffer(mmap.mmap(-1, max(n, 1) * 8), np.int64)


@dataclass(frozen=True)
class HostCensus:
    """What a host has: its own statistics, and what the kernel says of its process.

    Without the open lock files, of which a bounded number is kept for the next lock, and the shared segments of small
    arrays, of which one is kept that has become empty.
    """

    n_arrays: int
    n_objects: int
    n_bytes: int
    n_names: int
    n_leases: int
    n_sessions: int
    n_connections: int
    n_slots: int
    n_descriptors: int
    n_threads: int
    n_children: int

    @classmethod
    def take(cls, manager: ArrayManager) -> "HostCensus":
        found = manager.statistics()
        fields = {name: getattr(found, name) for name in cls.__annotations__ if hasattr(found, name)}
        pid = found.pid
        return cls(
            **fields,
            n_descriptors=_n_counted(pid, found.n_bytes),
            n_threads=len(os.listdir(f"/proc/{pid}/task")),
            n_children=len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
        )


def _n_counted(pid: int, n_bytes: int) -> int:
    """How many descriptors a host has, but for those that it may keep; of these there must not be more than it may."""
    found = _descriptors(pid)
    kept = {label: sum(n for name, n in found.items() if f"arrayhost:{label} " in name) for label in ("locks", "small")}
    assert kept["locks"] <= N_LOCK_FILES * (1 + MAX_IDLE + 1), "open lock files pile up"
    assert kept["small"] <= n_bytes // _SEGMENT_BYTES + 2, "segments of small arrays pile up"
    return found.total() - sum(kept.values())


def _descriptors(pid: int) -> Counter[str]:
    """A process's descriptors, by what they are of."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[os.readlink(f"/proc/{pid}/fd/{name}")] += 1
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def n_descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(kind: str, pid: int | str = "self") -> int:
    """Memory of a process that is in use: its own (``Anon``), or of memory files (``Shmem``)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"Rss{kind}:"))


@contextmanager
def nothing_left(manager: ArrayManager) -> Iterator[HostCensus]:
    """Fail unless the host has, soon after the block, exactly what it had before: nothing leaks, nobody hangs on."""
    before = HostCensus.take(manager)
    pid = manager.statistics().pid
    descriptors = _descriptors(pid)
    yield before

    def is_as_before() -> bool:
        return HostCensus.take(manager) == before

    try:
        wait_until(is_as_before, timeout=10.0)
    except AssertionError:
        more = _descriptors(pid) - descriptors
        raise AssertionError(
            f"the host has\n  {HostCensus.take(manager)}\nand had\n  {before}\nnew descriptors: {dict(more)}"
        ) from None


@contextmanager
def flat(manager: ArrayManager, n: int, tolerance: float = 0.01) -> Iterator[None]:
    """Fail unless descriptors, threads, memory and rows, here and in the host, are within 1 % of what they were.

    One shared segment for small arrays may be more in use: an empty one is kept. In the short run, which has hardly
    warmed up, private memory may also rise by one of the pieces in which an allocator takes it from the system.
    """
    before = _levels(manager)
    yield
    try:
        wait_until(lambda: not _risen(before, _levels(manager), tolerance), timeout=10.0)
    except AssertionError:
        raise AssertionError(f"after {n:,}, not flat: {_risen(before, _levels(manager), tolerance)}") from None
    after = _levels(manager)
    report(f"  after {n:,}: " + ", ".join(f"{name} {before[name]:,} -> {after[name]:,}" for name in after))


def _levels(manager: ArrayManager) -> dict[str, int]:
    host = HostCensus.take(manager)
    pid = manager.statistics().pid
    return {
        "host descriptors": host.n_descriptors,
        "host threads": host.n_threads,
        "host rows": host.n_slots,
        "host leases": host.n_leases,
        "host private": resident_bytes("Anon", pid),
        "host shared": resident_bytes("Shmem", pid),
        "client descriptors": n_descriptors(),
        "client threads": len(os.listdir("/proc/self/task")),
        "client private": resident_bytes("Anon"),
        "client shared": resident_bytes("Shmem"),
    }


def _risen(before: dict[str, int], after: dict[str, int], tolerance: float) -> list[str]:
    risen = []
    for name, old in before.items():
        slack = old * tolerance
        if name.endswith("shared"):
            slack += _SEGMENT_BYTES
        elif name.endswith("private") and not IS_LONG:
            slack = max(slack, _PIECE_BYTES)
        if after[name] > old + slack:
            risen.append(f"{name} {old:,} -> {after[name]:,}")
    return risen


def is_socket_left(address: str) -> bool:
    """Whether anybody still has a socket of that address, or of one that begins so."""
    return address.removeprefix("unix:") in Path("/proc/net/unix").read_text(errors="replace")


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not is_running(pid), what=f"the end of process {pid}")


class FreshProcess:
    """A watchdog for a process of its own: dumps every stack and ends it."""

    def arm(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True)


def in_fresh_process(scenario: Callable[[Run], None], n: int, seed: int) -> None:
    """Run a scenario where nothing else has used memory: its figures are not blurred by what tests did before."""
    process = get_context("spawn").Process(target=_in_fresh_process, args=(scenario, n, seed))
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    assert status == 0, f"the process ended with status {status}: see its output"


def _in_fresh_process(scenario: Callable[[Run], None], n: int, seed: int) -> None:
    scenario(Run(n, random.Random(seed), FreshProcess()))
    faulthandler.cancel_dump_traceback_later()


def scaled(run: Run, n: int) -> Run:
    """The same circumstances, another number of rounds."""
    return replace(run, n=n)
