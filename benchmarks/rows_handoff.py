"""A proxy unpickled in another process, up to its first element."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.first_element import first_element, first_element_stdlib, prepare
from benchmarks.harness import Budget, Case, Measurement, Scale, interleave
from benchmarks.hosts import both
from benchmarks.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

ELEMENTS = 1000


def measure_handoff(scale: Scale) -> Measurement:
    """One fresh process per sample: it has imported the library but has no connection yet. N unpickles the ndarray."""
    with both() as (ours, stdlib):
        a, p, x = ours.ones((ELEMENTS,)), stdlib.ones((ELEMENTS,)), np.ones((ELEMENTS,))
        contenders = {
            "ours": fresh("arrayhost", first_element, pickle.dumps(a)),
            "S": fresh("multiprocessing.managers", first_element_stdlib, pickle.dumps(p)),
            "N": fresh("numpy", first_element, pickle.dumps(x)),
        }
        return Measurement(interleave(contenders, scale.fresh))


def fresh(library: str, function: Callable[[bytes], float], payload: bytes) -> Callable[[], float]:
    """Return a sampler that runs ``function(payload)`` in a process of its own, which has imported `library`."""

    def sample() -> float:
        with Worker() as worker:
            worker.call(prepare, library)
            return float(worker.call(function, payload))

    return sample


CASES = (
    Case(
        "handoff",
        "a proxy unpickled in another process, to first element",
        measure_handoff,
        Budget("ours", 0.5, "ms", unit_value=1e-3),
    ),
)
