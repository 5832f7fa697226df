"""Four processes that increment one element under its lock for a fixed time."""

from __future__ import annotations

import pickle
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Samples, Scale, statement
from benchmarks.hosts import both
from benchmarks.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = 4
SMALLEST_SHARE = 0.1
HEAD_START = 0.2
"""Seconds for all processes to attach before the common start."""


def measure_sections(scale: Scale) -> Measurement:
    """Seconds per increment, all processes together; the total must be exact and nobody starve."""
    samples: Samples = {"ours": [], "S": [], "N": []}
    shares: dict[str, list[list[float]]] = {"ours": [], "S": []}
    private = statement("x[0] += 1", 10_000, x=np.zeros(1))
    with ExitStack() as stack:
        ours, stdlib = stack.enter_context(both())
        workers = [stack.enter_context(Worker()) for _ in range(PROCESSES)]
        for worker in workers:
            worker.call(prepare)
        a, p, lock = ours.zeros((8,)), stdlib.zeros((8,)), stdlib.Lock()

        def ours_now() -> float:
            return float(a[0])

        def stdlib_now() -> float:
            return float(p._callmethod("__getitem__", (0,)))

        for _ in range(scale.slow):
            for who, increment, target, now in (
                ("ours", increment_ours, pickle.dumps(a), ours_now),
                ("S", increment_stdlib, pickle.dumps((p, lock)), stdlib_now),
            ):
                seconds, counts = one_round(workers, increment, target, now, scale.seconds)
                samples[who].append(seconds / sum(counts))
                shares[who].append([count / sum(counts) for count in counts])
            samples["N"].append(private())
    return _judge(samples, shares)


def one_round(
    workers: list[Worker],
    increment: Callable[[bytes, float, float], tuple[int, float]],
    target: bytes,
    now: Callable[[], float],
    seconds: float,
) -> tuple[float, list[int]]:
    """Let all workers increment from one instant to another.

    Returns
    -------
    seconds : float
        From the common start until the last worker had finished.
    counts : list of int
        Increments of each worker.

    Raises
    ------
    ValueError
        The element did not grow by the sum of the counts.
    """
    before = now()
    start = time.monotonic() + HEAD_START
    for worker in workers:
        worker.send(increment, target, start, start + seconds)
    results = [worker.result() for worker in workers]
    counts = [count for count, _ in results]
    grown = now() - before
    if grown != sum(counts):
        raise ValueError(f"{sum(counts):,} increments changed the element by {grown:,}")
    return max(end for _, end in results) - start, counts


def prepare() -> None:
    """Import, in a worker, what the increments need, which is this module: the common start shall not wait for it."""


def increment_ours(target: bytes, start: float, stop: float) -> tuple[int, float]:
    """Increment inside sections until `stop`; return the number of increments and the time of the last."""
    a = pickle.loads(target)
    a[0]
    wait_until(start)
    count = 0
    while time.monotonic() < stop:
        with a.write() as x:
            x[0] += 1
        count += 1
    return count, time.monotonic()


def increment_stdlib(target: bytes, start: float, stop: float) -> tuple[int, float]:
    """Do the same with the manager's Lock around ``p[0] = p[0] + 1``."""
    p, lock = pickle.loads(target)
    call: Any = p._callmethod
    call("__getitem__", (0,))
    wait_until(start)
    count = 0
    while time.monotonic() < stop:
        with lock:
            call("__setitem__", (0, call("__getitem__", (0,)) + 1))
        count += 1
    return count, time.monotonic()


def wait_until(instant: float) -> None:
    """Sleep until `instant` on the clock that all processes share."""
    remaining = instant - time.monotonic()
    if remaining < 0:
        raise RuntimeError(f"{-remaining:.3f} s late at the common start")
    time.sleep(remaining)


def _judge(samples: Samples, shares: dict[str, list[list[float]]]) -> Measurement:
    rates = {who: 1 / statistics.median(samples[who]) for who in ("ours", "S")}
    notes = [f"{who}: {rates[who]:,.0f}/s, total exact; shares {_worst(shares[who])}" for who in ("ours", "S")]
    smallest = min(min(one) for one in shares["ours"])
    violations = []
    if smallest < SMALLEST_SHARE:
        violations.append(f"smallest share {smallest:.0%} of the total, below {SMALLEST_SHARE:.0%}")
    return Measurement(samples, notes=notes, violations=violations)


def _worst(rounds: list[list[float]]) -> str:
    worst = min(rounds, key=min)
    return " ".join(f"{share:.0%}" for share in sorted(worst)) + " (least even round)"


CASES = (
    Case(
        "section",
        "with a.write() as x: x[0] += 1, 4 processes",
        measure_sections,
        Budget("S/ours", 60, "times the rate of S"),
    ),
)
