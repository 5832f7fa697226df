"""Dask on a hosted array: its sum on two worker processes; N is Dask on memory that the workers have mapped before."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Scale, interleave, once
from benchmarks.hosts import Arrays
from benchmarks.workers import SPAWN

_WORKERS = 2
_BLOCKS = 10
_held: dict[str, np.ndarray[Any, Any]] = {}


def hold(array: Any) -> None:
    """Keep an ndarray of the memory in a worker, and touch all of it."""
    _held["array"] = np.asarray(array)
    _held["array"].sum()


def held_block(length: int, block_id: tuple[int]) -> np.ndarray[Any, Any]:
    """Slice what the worker keeps."""
    return _held["array"][block_id[0] * length : (block_id[0] + 1) * length]


def measure_sum(scale: Scale) -> Measurement:
    """Sum a large array, blocks of a tenth."""
    da = importlib.import_module("dask.array")
    distributed = importlib.import_module("distributed")
    length = scale.elements // _BLOCKS
    with (
        Arrays(ctx=SPAWN) as manager,
        distributed.LocalCluster(
            n_workers=_WORKERS, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        a = manager.ones((scale.elements,))
        client.run(hold, a)
        bare = da.map_blocks(held_block, length, chunks=((length,) * _BLOCKS,), dtype=a.dtype, meta=np.empty(0))
        contenders = {
            "ours": once(lambda: _checked(da.from_array(a, chunks=length).sum().compute(), scale)),
            "N": once(lambda: _checked(bare.sum().compute(), scale)),
        }
        return Measurement(interleave(contenders, scale.fast))


def _checked(total: float, scale: Scale) -> float:
    if total != scale.elements:
        raise ValueError(f"the sum of {scale.elements:,} ones was {total}")
    return total


CASES = (Case("dask-views", "sum of a hosted array by Dask's workers", measure_sum, Budget("ours/N", 1.3, "N")),)
