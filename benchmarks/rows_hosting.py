"""Bringing a large array into the host: made there, or copied from the caller; and a private copy back."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Scale, interleave, once
from benchmarks.hosts import both

SETTLE = 0.05
"""Seconds for a host to free the array that was just dropped, so that the next sample does not pay for it."""


def measure_ones(scale: Scale) -> Measurement:
    """Have ``ones`` made in the host; N is `np.ones`."""
    shape = (scale.elements,)
    with both() as (ours, stdlib):
        contenders = {
            "ours": once(lambda: ours.ones(shape), settle=SETTLE),
            "S": once(lambda: stdlib.ones(shape), settle=SETTLE),
            "N": once(lambda: np.ones(shape), settle=SETTLE),
        }
        return Measurement(interleave(contenders, scale.slow + 2))


def measure_registered(scale: Scale) -> Measurement:
    """Have a registered callable, `np.ones` itself, make the array in the host."""
    shape = (scale.elements,)
    with both() as (ours, stdlib):
        contenders = {
            "ours": once(lambda: ours.registered_ones(shape), settle=SETTLE),
            "S": once(lambda: stdlib.ones(shape), settle=SETTLE),
            "N": once(lambda: np.ones(shape), settle=SETTLE),
        }
        return Measurement(interleave(contenders, scale.slow + 2))


def measure_callers(scale: Scale) -> Measurement:
    """Host a copy of the caller's ndarray; N is ``ndarray.copy()``."""
    x = np.ones((scale.elements,))
    with both() as (ours, stdlib):
        contenders = {
            "ours": once(lambda: ours.array(x), settle=SETTLE),
            "S": once(lambda: stdlib.array(x), settle=SETTLE),
            "N": once(x.copy, settle=SETTLE),
        }
        return Measurement(interleave(contenders, scale.slow))


def measure_getvalue(scale: Scale) -> Measurement:
    """Fetch a private copy; N is ``ndarray.copy()``."""
    with both() as (ours, stdlib):
        a = ours.ones((scale.elements,))
        p = stdlib.ones((scale.elements,))
        x = np.ones((scale.elements,))
        contenders = {"ours": once(a._getvalue), "S": once(p._getvalue), "N": once(x.copy)}
        return Measurement(interleave(contenders, scale.slow))


CASES = (
    Case("host-ones", "hosting ones((n,))", measure_ones, Budget("ours/N", 1.2, "N")),
    Case("host-array", "hosting a caller's large ndarray", measure_callers, Budget("ours/N", 1.2, "N")),
)
INFORMATIVE = (
    Case("host-registered", "hosting by register(..., np.ones)", measure_registered),
    Case("getvalue", "_getvalue() of a large array", measure_getvalue),
)
