"""Atomicity under kills and stops: what processes did to an array and saw in it has an order that explains it."""

import contextlib
import random
import signal
import time
import warnings
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, TornArrayError, connect
from tests.faults.harness import Run, Victim, count, report, scaled, victims
from tests.faults.recording import KINDS, Recorder, histories
from tests.support import wait_until
from tests.support.linearizability import assert_linearizable

pytestmark = [pytest.mark.slow, pytest.mark.watchdog(120)]

N_ELEMENTS = 4
N_WHOLE = 5000
MOST_OPS = 250
# Between the two halves of what a section does: long enough for others to come between, if they could.
GAP = 100e-6


def _operate(array: Any, recorder: Recorder, rng: random.Random) -> None:
    """Do one operation on an array of a few elements, and record it."""
    kind = rng.choice(KINDS)
    i = rng.randrange(N_ELEMENTS)
    value = rng.randrange(1, 1000)
    with recorder.operation(kind, i, value) as done:
        if kind == "get":
            done(int(array[i]))
        elif kind == "set":
            array[i] = value
            done(0)
        elif kind == "fill":
            array.fill(value)
            done(0)
        elif kind == "section":
            with array.write() as x:
                x[:] = value
            done(0)
        elif kind == "add":
            array[i : i + 1] += value
            done(-1)
        elif kind == "section add":
            with array.write() as x:
                before = int(x[i])
                time.sleep(GAP)
                x[i] = before + value
            done(before)
        elif kind == "atomic add":
            done(int(array.atomic.add(i, value)))
        elif kind == "cas":
            expected = value % 3
            with array.write() as x:
                fits = int(x[i]) == expected
                time.sleep(GAP)
                if fits:
                    x[i] = value
            done(int(fits))
        else:
            done(int(array.atomic.compare_exchange(i, value % 3, value) == value % 3))


def operate_at_random(address: str, recorder: Recorder, seed: float) -> None:
    """Do operations on a few elements, and whole-array writes and copies beside, until all has been recorded."""
    rng = random.Random(seed)
    warnings.simplefilter("ignore")
    manager = connect(address)
    few, whole = manager["few"], manager["whole"]
    while recorder.has_room:
        with contextlib.suppress(TornArrayError):
            _operate(few, recorder, rng)
            if rng.random() < 0.2:
                _look_at_whole(whole, rng)
        if few.statistics().torn:
            # Who meets a tear writes the whole array; that is one operation like any other.
            value = rng.randrange(1, 1000)
            with recorder.operation("fill", 0, value) as done:
                few.fill(value)
                done(0)


def _look_at_whole(whole: Any, rng: random.Random) -> None:
    """Write an array as a whole, in one of three ways, and see that no copy is half of a write."""
    value = float(rng.randrange(1000))
    way = rng.randrange(3)
    try:
        if way == 0:
            whole.fill(value)
        elif way == 1:
            whole[...] = np.full(N_WHOLE, value)
        else:
            with whole.write() as x:
                x[::2] = value
                x[1::2] = value
        copy = whole.copy()
        assert (copy == copy[0]).all(), "half a write"
    except TornArrayError:
        whole.fill(value)


def check_atomicity(run: Run, n_processes: int = 5, *, faults: bool = True) -> None:
    """Record histories by several processes, of which some are stopped and killed, and look for their order."""
    n_ops = n_killed = 0
    for _ in run.rounds():
        with ArrayManager(lock_timeout=20.0) as manager, victims() as alive:
            manager["few"], manager["whole"] = np.zeros(N_ELEMENTS, np.int64), np.zeros(N_WHOLE)
            recorders = [Recorder(k, MOST_OPS // n_processes) for k in range(n_processes)]
            for recorder in recorders:
                alive.append(Victim(operate_at_random, str(manager.address), recorder, run.rng.random()))
            doomed = set(run.rng.sample(range(n_processes), 2)) if faults else set()
            for k in doomed:
                wait_until(lambda: recorders[k].n > 5, what="its first operations")  # noqa: B023  # called in this round only
                run.pause(0.003)
                alive[k].signal(signal.SIGSTOP)
                run.pause(0.003)
                alive[k].signal(signal.SIGKILL if run.rng.random() < 0.7 else signal.SIGCONT)
            for k, victim in enumerate(alive):
                status = victim.wait(30.0)
                assert status == 0 or (k in doomed and status == -signal.SIGKILL), f"status {status}"
                n_killed += status != 0
            alive.clear()
            few = manager["few"]
            last = None if few.statistics().torn else few.copy()
        end = time.monotonic_ns()
        for i, history in enumerate(histories(recorders, N_ELEMENTS, last, end)):
            assert_linearizable(history, 0, f"element {i}")
        n_ops += sum(recorder.n for recorder in recorders)
    report(
        f"  {run.n:,} histories, {n_ops:,} operations by {n_processes} processes each, {n_killed} killed on the way: "
        "linearizable for each element, no copy with half a write"
    )


def test_histories_under_kills_and_stops(run: Run) -> None:
    check_atomicity(scaled(run, count(8, 200)))


def test_histories_of_eight_processes(run: Run) -> None:
    check_atomicity(scaled(run, count(3, 50)), 8)
