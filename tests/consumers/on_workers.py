"""What `test_dask_workers.py` has a process of its own do: a Dask cluster of two worker processes, and hosted arrays.

Dask leaves threads, sockets and processes in a program that has used a cluster; this one ends. It is told names of the
functions below, a line each, and prints what they return as JSON.
"""

import contextlib
import json
import os
import pickle
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import arrayhost
from arrayhost import ArrayManager, HostedArray

LARGE = 50_000_000  # of float64: 400 MB
BLOCK = 1_000_000  # 8 MB
WORKER_LIMIT = 370 * 2**20  # less than the large array
SHAPE, BLOCKS = (300, 200), (100, 50)


class Stage(NamedTuple):
    """What the functions work with."""

    manager: ArrayManager
    client: Any


def status() -> dict[str, int]:
    """The lines of /proc/self/status about memory, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("Vm", "Rss"))}


def forget_peak() -> dict[str, int]:
    """Make the peak of resident memory what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status()


def mapped_file(array: np.ndarray) -> str:
    """The file whose mapping an array lies in; empty for private memory."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        if start <= address < end:
            return " ".join(line.split()[5:])
    return ""


def describe(block: np.ndarray) -> np.ndarray:
    """What a worker is given as a block, in an array of one row."""
    try:
        block[:1] = 7
        written = "written"
    except ValueError as error:
        written = str(error)
    return np.array([[type(block).__name__, str(block.flags.writeable), mapped_file(block), written]])


def values() -> np.ndarray:
    return np.arange(float(np.prod(SHAPE))).reshape(SHAPE)


# -- reading ----------------------------------------------------------------------------------------------------------


def large(stage: Stage) -> dict[str, Any]:
    """Sum 400 MB, twice, with a write between."""
    import dask.array as da

    warm = stage.manager.ones(10 * BLOCK)
    da.from_array(warm, chunks=BLOCK).sum().compute()
    a = stage.manager.ones(LARGE)
    before = stage.client.run(forget_peak)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = da.from_array(a, chunks=BLOCK)
        first = float(x.sum().compute())
        a[0] = 5
        second = float(x.sum().compute())
    after = stage.client.run(status)
    return {
        "graph": len(pickle.dumps(x.__dask_graph__())),
        "sums": [first, second],
        "warnings": [str(one.message) for one in caught],
        "grown": {who: after[who]["VmHWM"] - before[who]["VmRSS"] for who in before},
        "kept": {who: after[who]["VmRSS"] - before[who]["VmRSS"] for who in before},
        "names": [x.name, da.from_array(a, chunks=BLOCK).name],
    }


def blocks(stage: Stage) -> list[list[str]]:
    """What each worker is given."""
    a = stage.manager.array(values())
    x = arrayhost.to_dask(a, chunks=BLOCKS).map_blocks(describe, dtype="U200", chunks=(1, 4))
    return x.compute().reshape(-1, 4).tolist()


def kept_results(stage: Stage) -> list[float]:
    """Sums while a result of before the write is kept: of the same Dask array, and of one made after the write."""
    a = stage.manager.ones(SHAPE)
    x = arrayhost.to_dask(a, chunks=BLOCKS)
    kept = stage.client.compute(x.sum())
    sums = [float(kept.result())]
    a[0, 0] = 11
    sums.append(float(arrayhost.to_dask(a, chunks=BLOCKS).sum().compute()))
    del kept
    return sums


def equal(stage: Stage) -> dict[str, bool]:
    """Calls on views, compared with those on the ndarray."""
    import dask.array as da

    plain = values()
    a = stage.manager.array(plain)
    calls: dict[str, Callable[[Any], Any]] = {
        "transposed": lambda b: da.from_array(b.T, chunks=50).std(axis=0),
        "reversed": lambda b: da.from_array(b[::-2, 3:], chunks=40) + 1,
        "auto": lambda b: da.from_array(b),
        "fancy": lambda b: da.from_array(b, chunks=BLOCKS)[[5, 250, 5], :][:, [0, 199]],
        "new axis": lambda b: da.from_array(b, chunks=BLOCKS)[None, 3],
        "product": lambda b: da.from_array(b.T, chunks=60) @ da.from_array(b, chunks=60),
        "beside it": lambda b: da.ones(SHAPE, chunks=BLOCKS) + b,
        "overlap": lambda b: da.from_array(b, chunks=BLOCKS).map_overlap(np.tanh, depth=1, boundary="none"),
    }
    return {name: bool(np.array_equal(call(a).compute(), call(plain).compute())) for name, call in calls.items()}


def by_xarray(stage: Stage) -> dict[str, Any]:
    import xarray as xr

    plain = values()
    labelled = xr.DataArray(stage.manager.array(plain), dims=("x", "y")).chunk(x=100)
    return {
        "graph": len(pickle.dumps(labelled.__dask_graph__())),
        "equal": bool(np.array_equal(labelled.mean("x").compute().values, plain.mean(axis=0))),
    }


def take_part(part: Any) -> list[Any]:
    part += 1
    return [type(part).__name__, mapped_file(np.asarray(part)), float(part.sum())]


def by_joblib(stage: Stage) -> dict[str, Any]:
    import joblib

    a = stage.manager.zeros(1000)
    with joblib.parallel_config(backend="dask", client=stage.client, wait_for_workers_timeout=30):
        told = joblib.Parallel()(joblib.delayed(take_part)(part) for part in a.blocks(4))
    return {"told": told, "total": float(a.sum())}


# -- writing ----------------------------------------------------------------------------------------------------------


def store(stage: Stage) -> dict[str, Any]:
    """Store into hosted arrays; how many writes each took."""
    import dask.array as da

    plain = values()
    x = da.from_array(plain, chunks=BLOCKS).persist()
    outcomes: dict[str, Any] = {}
    for name, options in {"locked": {}, "unlocked": {"lock": False}, "returned": {"return_stored": True}}.items():
        a = stage.manager.zeros(SHAPE)
        version = a.version
        stored = da.store(x, a, **options)
        if stored is not None:
            outcomes["what is returned"] = bool(np.array_equal(stored.compute(), plain))
        outcomes[name] = [bool(np.array_equal(a.copy(), plain)), (a.version - version) // 2]
    a, b = stage.manager.zeros((2, *SHAPE)), stage.manager.zeros(SHAPE)
    da.store([x, x[:100]], [a[1], b], regions=[(slice(None), slice(None)), (slice(200, 300), slice(None))])
    outcomes["regions"] = bool(
        np.array_equal(a[1].copy(), plain)
        and not a[0].any()
        and np.array_equal(b[200:].copy(), plain[:100])
        and not b[:200].any()
    )
    return outcomes


# -- where the Unix socket cannot be reached --------------------------------------------------------------------------


def where(array: Any) -> list[Any]:
    return [array._source.link.address, array.mapped, float(array.sum())]


@contextlib.contextmanager
def unreachable(key: bytes | None) -> Iterator[tuple[HostedArray, ArrayManager]]:
    """A host whose Unix socket no new process finds, as on another machine; its TCP port is all they have."""
    with tempfile.TemporaryDirectory(prefix="ah-") as folder:
        inside = Path(folder) / "inside"
        with ArrayManager(f"unix:{inside}/host", key, listen="tcp://127.0.0.1:0") as manager:
            a = manager.array(values())
            inside.rename(Path(folder) / "elsewhere")
            try:
                yield a, manager
            finally:
                (Path(folder) / "elsewhere").rename(inside)


def over_tcp(stage: Stage) -> dict[str, Any]:
    """Workers that share this program's key."""
    with unreachable(None) as (a, manager):
        x = arrayhost.to_dask(a, chunks=BLOCKS)
        total = float(x.sum().compute())
        x.map_blocks(np.negative).store(a)
        return {
            "sums": [total, float(a.sum()), float(values().sum())],
            "blocks": x.map_blocks(describe, dtype="U200", chunks=(1, 4)).compute().reshape(-1, 4).tolist(),
            "proxies": stage.client.submit(where, a, pure=False).result(),
            "addresses": [*manager.network_addresses, manager.address],
        }


def connect_there(address: str, key: bytes) -> None:
    arrayhost.connect(address, key)


def without_the_key(stage: Stage) -> dict[str, Any]:
    """Workers that do not have the key, and then do."""
    key = os.urandom(32)
    with unreachable(key) as (a, manager):
        x = arrayhost.to_dask(a, chunks=BLOCKS)
        try:
            x.sum().compute()
            refused = ""
        except Exception as error:  # whatever it is, it is what is asked for
            refused = f"{type(error).__name__}: {error}"
        stage.client.run(connect_there, manager.network_addresses[0], key)
        return {"refused": refused, "sums": [float(x.sum().compute()), float(values().sum())]}


# -- the conversation -------------------------------------------------------------------------------------------------


def main() -> None:
    import dask
    from distributed import Client, LocalCluster

    dask.config.set({"distributed.comm.timeouts.connect": "20s"})
    with (
        ArrayManager() as manager,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=WORKER_LIMIT,
        ) as cluster,
        Client(cluster) as client,
    ):
        stage = Stage(manager, client)
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                told = {"result": globals()[line.strip()](stage)}
            except Exception:  # told to the test, which fails with it
                told = {"error": traceback.format_exc()}
            print(json.dumps(told), flush=True)
