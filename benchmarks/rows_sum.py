"""Reading a whole large array: in the process that made it, and in another one."""

from __future__ import annotations

import functools
import pickle
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Samples, Scale, interleave, once
from benchmarks.hosts import both
from benchmarks.workers import Worker

AGAIN = 3
"""Repeated sums per process; their median is one sample."""


def measure_sum(scale: Scale) -> Measurement:
    """Sum a large array from the process that had it made."""
    with both() as (ours, stdlib):
        a = ours.ones((scale.elements,))
        p = stdlib.ones((scale.elements,))
        x = np.ones((scale.elements,))
        contenders = {"ours": once(a.sum), "S": once(lambda: p._callmethod("sum")), "N": once(x.sum)}
        return Measurement(interleave(contenders, scale.fast, warmup=2))


def first_and_again(ours: bytes, stdlib: bytes, elements: int) -> dict[str, tuple[float, float]]:
    """Time, in another process, a first sum with the attaching and the sums after it.

    S has to fetch the elements to use them there (``_getvalue()``), and N's pages have been touched before.
    """
    start = time.perf_counter()
    a = pickle.loads(ours)
    total = a.sum()
    seconds = time.perf_counter() - start
    _check(total, elements)
    result = {"ours": (seconds, _again(a.sum))}

    start = time.perf_counter()
    p = pickle.loads(stdlib)
    total = p._getvalue().sum()
    seconds = time.perf_counter() - start
    _check(total, elements)
    result["S"] = (seconds, once(lambda: p._getvalue().sum())())

    x = np.ones((elements,))
    x.sum()
    result["N"] = (once(x.sum)(), _again(x.sum))
    return result


def _again(work: Any) -> float:
    sample = once(work)
    return statistics.median(sample() for _ in range(AGAIN))


def _check(total: float, elements: int) -> None:
    if total != elements:
        raise ValueError(f"the sum of {elements:,} ones was {total}")


@functools.cache
def _elsewhere(scale: Scale) -> tuple[Samples, Samples]:
    """Samples of (first, again): one fresh process per repetition, with all three contenders in it."""
    first: Samples = {"ours": [], "S": [], "N": []}
    again: Samples = {"ours": [], "S": [], "N": []}
    with both() as (ours, stdlib):
        a = ours.ones((scale.elements,))
        p = stdlib.ones((scale.elements,))
        for _ in range(scale.slow):
            with Worker() as worker:
                times = worker.call(first_and_again, pickle.dumps(a), pickle.dumps(p), scale.elements)
            for who, (seconds, seconds_again) in times.items():
                first[who].append(seconds)
                again[who].append(seconds_again)
    return first, again


CASES = (
    Case("sum", "sum of a large hosted array", measure_sum, Budget("ours/N", 1.05, "N")),
    Case(
        "sum-elsewhere-first",
        "summed in another process, attach included",
        lambda scale: Measurement(_elsewhere(scale)[0]),
        Budget("ours/N", 1.2, "N"),
    ),
    Case(
        "sum-elsewhere-again",
        "summed in another process, again",
        lambda scale: Measurement(_elsewhere(scale)[1]),
        Budget("ours/N", 1.05, "N"),
    ),
)
