"""What a ``kill -9`` leaves: of a client inside a section, of all that a client held, of the host itself."""

import contextlib
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import arrayhost
from arrayhost.cli.demo.measuring import Measured, ShortfallError
from arrayhost.cli.demo.ours import Arrays
from arrayhost.cli.demo.processes import child, interrupts_held, kill, runs, wait_gone, wait_until
from arrayhost.cli.demo.steps import Stage, Step
from arrayhost.cli.demo.twin import Twin

_N_HELD = 20
_PATIENCE = 10.0
_STDLIB_PATIENCE = 0.5
_SIZE = 1_000


def aftermath() -> list[Step]:
    """List the steps, in order."""
    return [
        Step("kill -9 inside a section: the next writer", _next_writer, _all_told, _twin_next_writer, once=True),
        Step(f"the {_N_HELD} arrays that the killed one held", _held, lambda s: "all freed", _twin_held, once=True),
        Step("kill -9 of the host: read and write after it", _host_killed, _goes_on, _twin_host_killed, once=True),
        Step("processes, sockets, files it left", _host_leaves, lambda s: "none", _twin_host_leaves, once=True),
    ]


def _all_told(_: Stage) -> Any:
    return "writer told", "reader told", "recovered"


def _goes_on(_: Stage) -> Any:
    return "read right", "write: HostGoneError"


# A client killed ------------------------------------------------------------------------------------------------------


def hold_section(connection: Connection, array: Any, address: str) -> None:
    """Hold arrays of one's own and a half-written section until killed; runs in a child."""
    manager = arrayhost.connect(address)
    held = [manager.ones(_SIZE) for _ in range(_N_HELD)]
    with array.write() as x:
        x[: x.size // 2] = 7
        connection.send(len(held))
        signal.pause()


@contextlib.contextmanager
def _client_killed(task: Callable[..., None], *args: Any) -> Iterator[float]:
    """Have a child run `task` until it says that it is where it should be, and kill it; gives the moment."""
    with child("fork", task, *args) as (process, connection):
        if not connection.poll(_PATIENCE):
            raise TimeoutError("the client to be killed is not ready")
        connection.recv()
        moment = time.perf_counter()
        kill(process.pid or 0)
        yield moment


def _next_writer(stage: Stage) -> Measured:
    array = stage.arrays.zeros(_SIZE)
    with _client_killed(hold_section, array, stage.arrays.address) as killed:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with array.write(timeout=_PATIENCE):
                seconds = time.perf_counter() - killed
        told = any(issubclass(one.category, arrayhost.TornArrayWarning) for one in caught)
        value = f"writer {'told' if told else 'not told'}", _reader_told(array), _recovered(array)
    return Measured(value, seconds)


def _reader_told(array: Any) -> str:
    try:
        array.sum()
    except arrayhost.TornArrayError:
        return "reader told"
    return "reader not told"


def _recovered(array: Any) -> str:
    array.recover()
    return "recovered" if array.sum() == 7 * (_SIZE // 2) else f"sum {array.sum()}"


def _no_more_than(now: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether nothing was added; what an earlier step dropped late may be missing."""
    return all(n <= m for n, m in zip(now, before, strict=True))


def _held(stage: Stage) -> Measured:
    array = stage.arrays.zeros(_SIZE)
    before = _holdings(stage.arrays)
    with _client_killed(hold_section, array, stage.arrays.address) as killed:
        freed = wait_until(lambda: _no_more_than(_holdings(stage.arrays), before), _PATIENCE)
        seconds = time.perf_counter() - killed
    left = f"arrays, leases: {_holdings(stage.arrays)}, before: {before}"
    return Measured("all freed" if freed else left, seconds)


def _holdings(manager: Any) -> tuple[int, int]:
    now = manager.statistics()
    return now.n_arrays, now.n_leases


def hold_lock(connection: Connection, twin_class: type[BaseManager], address: Any, lock: Any) -> None:
    """Do the same with the standard library: hold arrays and its lock; runs in a child."""
    twin = twin_class(address)
    twin.connect()
    held = [twin.zeros(_SIZE) for _ in range(_N_HELD)]  # type: ignore[attr-defined]  # registered at run time
    with lock:
        connection.send(len(held))
        signal.pause()


def _twin_next_writer(stage: Stage) -> None:
    twin = stage.twin
    lock = twin.Lock()
    with _client_killed(hold_lock, Twin, twin.address, lock):
        if not lock.acquire(timeout=_STDLIB_PATIENCE):
            raise ShortfallError("the lock stays held: all wait for ever")


def _twin_held(stage: Stage) -> None:
    twin = stage.twin
    lock = twin.Lock()
    before = twin._number_of_objects()
    with _client_killed(hold_lock, Twin, twin.address, lock):
        wait_until(lambda: twin._number_of_objects() == before, _STDLIB_PATIENCE)
    kept = twin._number_of_objects() - before
    if kept:
        raise ShortfallError(f"the host keeps {kept} for ever")


# The host killed ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _another_host() -> Iterator[Any]:
    """Start a host that may be killed."""
    manager = Arrays()
    with contextlib.ExitStack() as stack:
        with interrupts_held():
            manager.start()
            stack.callback(manager.shutdown)
        yield manager


def _host_killed(_: Stage) -> Measured:
    with _another_host() as manager:
        array = manager.arange(_SIZE)
        before = array.sum()
        pid = manager.statistics().pid
        kill(pid)
        wait_gone(pid, _PATIENCE)
        start = time.perf_counter()
        read = "read right" if array.sum() == before else "read wrong"
        value = read, f"write: {_write_outcome(array)}"
        return Measured(value, time.perf_counter() - start)


def _write_outcome(array: Any) -> str:
    try:
        array[0] = 1
    except Exception as error:  # the kind of error is the result
        return type(error).__name__
    return "done"


def _host_leaves(_: Stage) -> Any:
    with _another_host() as manager:
        array = manager.ones(_SIZE)
        pid = manager.statistics().pid
        processes = [pid, *_descendants(pid)]
        files = _shm_files(processes)
        address = str(manager.address)
        kill(pid)
        # Not at once: a process counts as dead when its first thread is; others hold the sockets a moment longer.
        wait_until(lambda: not _left(processes, address, files), _PATIENCE)
        left = _left(processes, address, files)
        del array
    return ", ".join(left) or "none"


def _left(processes: list[int], address: str, files: set[Path]) -> list[str]:
    running = [f"process {pid}" for pid in processes if runs(pid)]
    return running + _sockets(address) + [str(file) for file in files if file.exists()]


def _descendants(pid: int) -> list[int]:
    children = [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
    return children + [grandchild for one in children for grandchild in _descendants(one)]


def _shm_files(processes: list[int]) -> set[Path]:
    """Files in /dev/shm that the processes, or we, have mapped or open: what a kill might leave there."""
    names = set()
    for pid in ["self", *processes]:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            names.add(line[line.find("/") :] if "/" in line else "")
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.add(str(link.readlink()))
    return {Path(name) for name in names if name.startswith("/dev/shm/") and not name.endswith(" (deleted)")}


def _sockets(address: str) -> list[str]:
    name = address.removeprefix("unix:")
    # In the kernel's list an abstract name starts with @, as in ours; a listening socket carries the flag 00010000.
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening = [f"socket {name}" for line in lines if line[-1] == name and line[3] == "00010000"]
    return listening + ([name] if name.startswith("/") and Path(name).exists() else [])


def _twin_host_killed(_: Stage) -> None:
    with _another_twin() as twin:
        array = twin.ones((_SIZE,))
        _kill_twin(twin)
        array.sum()


def _twin_host_leaves(_: Stage) -> None:
    with _another_twin() as twin:
        address = Path(twin.address)
        _kill_twin(twin)
        if not address.exists():
            return
        address.unlink()
        raise ShortfallError("its socket's file")


@contextlib.contextmanager
def _another_twin() -> Iterator[Any]:
    twin = Twin()
    with contextlib.ExitStack() as stack:
        with interrupts_held():
            twin.start_quietly()
            stack.callback(twin.shutdown)
        yield twin


def _kill_twin(twin: Any) -> None:
    pid = twin._process.pid
    kill(pid)
    wait_gone(pid, _PATIENCE)
