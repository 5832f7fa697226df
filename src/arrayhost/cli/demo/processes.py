"""Children that answer: started under any method, deaf to Ctrl-C, and gone when this process goes."""

import contextlib
import ctypes
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

ANSWER_TIMEOUT = 120.0
_END_TIMEOUT = 5.0
_PR_SET_PDEATHSIG = 1


class ChildError(RuntimeError):
    """A child failed, died or did not answer; the text says which."""


@dataclass(frozen=True)
class Answers:
    """What several children answered, and the seconds from the first one's start to the last one's end."""

    values: list[Any]
    seconds: float


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold SIGINT back, and let the processes that are started meanwhile never see it.

    A blocked signal stays blocked across fork and exec. So a Ctrl-C, which the terminal sends to the whole group,
    reaches this process alone, and it ends the others in order. (Ignoring it would lose one that comes just now.)
    """
    # The tracker's first start unblocks SIGINT behind our back: have it started before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def child(method: str, task: Callable[..., Any], *args: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run ``task(connection, *args)`` in a child; it is gone when the block ends.

    Parameters
    ----------
    method : {"fork", "spawn", "forkserver"}
        How the child starts.
    task : callable
        Importable by name.
    """
    context = mp.get_context(method)
    here, there = context.Pipe()
    # The stubs give Process to each kind of context, not to what they have in common.
    process: BaseProcess = context.Process(target=_enter, args=(there, task, args), daemon=True)  # type: ignore[attr-defined]
    with here, there:
        try:
            with interrupts_held():  # inside the try: a Ctrl-C that was held back strikes as this block ends
                process.start()
            there.close()  # so that the child's death is an EOF here
            yield process, here
            process.join(_END_TIMEOUT)
        finally:
            _end(process)


def _end(process: BaseProcess) -> None:
    if process.pid is None:  # never started
        return
    if process.is_alive():
        process.kill()
    process.join()
    process.close()


def _enter(connection: Connection, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
    die_with_parent()
    np.seterr(all="ignore")
    with connection:
        task(connection, *args)


def ask(method: str, task: Callable[..., Any], *args: Any) -> Any:
    """Evaluate ``task(*args)`` in a child that starts for it."""
    with child(method, _answer, task, args) as (process, connection):
        return _receive(process, connection)


def ask_together(n_children: int, task: Callable[..., Any], *args: Any) -> Answers:
    """Evaluate ``task(*args)`` in several forked children at once, all let go at the same moment."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child("fork", _answer_timed, task, args)) for _ in range(n_children)]
        for process, connection in children:
            _receive(process, connection)  # ready
        for _, connection in children:
            connection.send(None)  # go
        return _together([_receive(*one) for one in children])


def _together(answers: Sequence[tuple[float, Any, float]]) -> Answers:
    # perf_counter is the system's monotonic clock on Linux: the same in every process.
    first_start = min(start for start, _, _ in answers)
    last_end = max(end for _, _, end in answers)
    return Answers([value for _, value, _ in answers], last_end - first_start)


def _answer(connection: Connection, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
    _send_outcome(connection, lambda: task(*args))


def _answer_timed(connection: Connection, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
    connection.send((True, "ready"))
    connection.recv()
    start = time.perf_counter()
    _send_outcome(connection, lambda: (start, task(*args), time.perf_counter()))


def _send_outcome(connection: Connection, work: Callable[[], Any]) -> None:
    try:
        outcome = True, work()
    except Exception as error:  # whatever it was, the parent tells it
        outcome = False, f"{type(error).__name__}: {error}"
    connection.send(outcome)


def _receive(process: BaseProcess, connection: Connection) -> Any:
    try:
        if not connection.poll(ANSWER_TIMEOUT):
            raise ChildError(f"process {process.pid} did not answer within {ANSWER_TIMEOUT:.0f} s")
        right, value = connection.recv()
    except EOFError:
        process.join(_END_TIMEOUT)
        raise ChildError(f"process {process.pid} ended without an answer, exit code {process.exitcode}") from None
    if not right:
        raise ChildError(f"in a child: {value}")
    return value


def wait_gone(pid: int, timeout: float) -> bool:
    """Wait until process `pid` runs no more (a zombie does not run); False if it still does after `timeout` seconds."""
    return wait_until(lambda: not runs(pid), timeout)


def runs(pid: int) -> bool:
    """Whether process `pid` exists and is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Look every millisecond until `condition` holds; False if it does not within `timeout` seconds."""
    deadline = time.perf_counter() + timeout
    while not condition():
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.001)
    return True


def kill(pid: int) -> None:
    """Send SIGKILL."""
    os.kill(pid, signal.SIGKILL)
