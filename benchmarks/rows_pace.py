"""How much readers slow writers down: writes to an array that four processes copy, beside one that they leave alone."""

from __future__ import annotations

import pickle
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Samples, Scale
from benchmarks.hosts import both
from benchmarks.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost import HostedArray

ELEMENTS = 1_000_000
READERS = 4
HEAD_START = 0.3
"""Seconds for all processes to attach before the common start."""


def measure_pace(scale: Scale) -> Measurement:
    """Seconds per write, by one process that writes through the host and one that writes in sections.

    The readers copy either the array that is written to or another one, in turn; no copy may show two writes.
    """
    samples: Samples = {"ours": [], "unrelated": []}
    with ExitStack() as stack:
        ours, _ = stack.enter_context(both())
        workers = [stack.enter_context(Worker()) for _ in range(READERS + 2)]
        for worker in workers:
            worker.call(prepare)
        written, other = ours.zeros((ELEMENTS,)), ours.zeros((ELEMENTS,))
        for _ in range(scale.slow):
            for who, read in (("ours", written), ("unrelated", other)):
                samples[who].append(seconds_per_write(workers, written, read, scale.seconds))
    return Measurement(samples, notes=[f"{READERS} readers, {ELEMENTS:,} elements; no copy showed two writes"])


def seconds_per_write(workers: list[Worker], written: HostedArray, read: HostedArray, seconds: float) -> float:
    """Let everybody run for a time, and return how long one write took."""
    start = time.monotonic() + HEAD_START
    for worker in workers[:READERS]:
        worker.send(copy_until, pickle.dumps(read), start + seconds)
    for worker, write in zip(workers[READERS:], (fill_in_host, fill_in_section), strict=True):
        worker.send(write_until, write, pickle.dumps(written), start, start + seconds)
    counts = [worker.result() for worker in workers]
    return seconds / sum(counts[READERS:])


def prepare() -> None:
    """Import, in a worker, what the loops need, which is this module: the common start shall not wait for it."""


def copy_until(target: bytes, stop: float) -> int:
    """Copy until `stop`; return how often."""
    a = pickle.loads(target)
    count = 0
    while time.monotonic() < stop:
        copy = a.copy()
        if copy.min() != copy.max():
            raise ValueError(f"a copy shows two writes: {copy.min()} and {copy.max()}")
        count += 1
    return count


def fill_in_host(a: HostedArray, value: int) -> None:
    """Write the whole array through the host."""
    a.fill(value)


def fill_in_section(a: HostedArray, value: int) -> None:
    """Write the whole array in a section."""
    with a.write() as x:
        x[...] = np.float64(-value)


def write_until(write: Callable[[HostedArray, int], None], target: bytes, start: float, stop: float) -> int:
    """Write one value after the other until `stop`; return how many."""
    a = pickle.loads(target)
    _sleep_until(start)
    count = 0
    while time.monotonic() < stop:
        write(a, count)
        count += 1
    return count


def _sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))


CASES = (
    Case(
        "pace",
        "writes while 4 processes copy the array",
        measure_pace,
        Budget("ours/unrelated", 1.43, "times what it takes while they copy another"),
    ),
)
