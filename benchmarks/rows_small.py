"""What a proxy adds to small work: arithmetic and a reduction on ten elements, a method call on a hosted object."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Scale, interleave, statement
from benchmarks.hosts import Counter, both

ELEMENTS = 10
LOCAL = 2000
TRIPS = 300


def measure_getitem(scale: Scale) -> Measurement:
    """``a[i]``."""
    with both() as (ours, _):
        contenders = {
            "ours": statement("a[i]", LOCAL, a=ours.ones((ELEMENTS,)), i=7),
            "N": statement("x[i]", LOCAL, x=np.ones((ELEMENTS,)), i=7),
        }
        return Measurement(interleave(contenders, scale.fast))


def measure_shape(scale: Scale) -> Measurement:
    """``a.shape``."""
    with both() as (ours, _):
        contenders = {
            "ours": statement("a.shape", LOCAL, a=ours.ones((ELEMENTS,))),
            "N": statement("x.shape", LOCAL, x=np.ones((ELEMENTS,))),
        }
        return Measurement(interleave(contenders, scale.fast))


def measure_add(scale: Scale) -> Measurement:
    """``a + b``; with the stdlib both operands must be fetched."""
    with both() as (ours, stdlib):
        contenders = {
            "ours": statement("a + b", LOCAL, a=ours.ones((ELEMENTS,)), b=ours.ones((ELEMENTS,))),
            "S": statement(
                "p._getvalue() + q._getvalue()", TRIPS, p=stdlib.ones((ELEMENTS,)), q=stdlib.ones((ELEMENTS,))
            ),
            "N": statement("x + y", LOCAL, x=np.ones((ELEMENTS,)), y=np.ones((ELEMENTS,))),
        }
        return Measurement(interleave(contenders, scale.fast))


def measure_sum(scale: Scale) -> Measurement:
    """``a.sum()``."""
    with both() as (ours, stdlib):
        contenders = {
            "ours": statement("a.sum()", LOCAL, a=ours.ones((ELEMENTS,))),
            "S": statement("p._callmethod('sum')", TRIPS, p=stdlib.ones((ELEMENTS,))),
            "N": statement("x.sum()", LOCAL, x=np.ones((ELEMENTS,))),
        }
        return Measurement(interleave(contenders, scale.fast))


def measure_method(scale: Scale) -> Measurement:
    """``counter.add(1)`` on a hosted object, a round trip in both managers."""
    with both() as (ours, stdlib):
        contenders = {
            "ours": statement("c.add(1)", TRIPS, c=ours.Counter()),
            "S": statement("c.add(1)", TRIPS, c=stdlib.Counter()),
            "N": statement("c.add(1)", LOCAL, c=Counter()),
        }
        return Measurement(interleave(contenders, scale.fast))


CASES = (
    Case("getitem-10", "a[i], beside ndarray", measure_getitem, Budget("ours/N", 5, "N")),
    Case("shape-10", "a.shape, beside ndarray", measure_shape, Budget("ours/N", 5, "N")),
    Case("add-10", "a + b, 10 elements", measure_add, Budget("ours/N", 5, "N")),
    Case("sum-10", "a.sum(), 10 elements", measure_sum, Budget("ours/N", 5, "N")),
)
INFORMATIVE = (Case("method", "method call on a hosted object", measure_method),)
