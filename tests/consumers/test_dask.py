"""Dask's arrays from hosted arrays, and that what Dask remembers never stands for what was written later."""

from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_alike, assert_equal, library

da = library("dask.array")
dask = library("dask")

BLOCKS = (16, 16)
CALLS = {
    "as it is": lambda da, a: da.from_array(a, chunks=BLOCKS),
    "one block": lambda da, a: da.from_array(a, chunks=-1),
    "asarray": lambda da, a: da.asarray(a),
    "sum": lambda da, a: da.from_array(a, chunks=BLOCKS).sum(axis=0),
    "product": lambda da, a: da.from_array(a, chunks=BLOCKS).T @ da.from_array(a, chunks=BLOCKS),
    "slices": lambda da, a: da.from_array(a, chunks=BLOCKS)[3:18:2, 5],
    "fancy index": lambda da, a: da.from_array(a, chunks=BLOCKS)[[3, 17, 3]],
    "mask": lambda da, a: da.from_array(a[0], chunks=8)[da.from_array(a[0], chunks=8) > 0],
    "median": lambda da, a: da.median(da.from_array(a, chunks=BLOCKS), axis=0),
    "map_blocks": lambda da, a: da.from_array(a, chunks=BLOCKS).map_blocks(np.sort),
    "map_overlap": lambda da, a: da.from_array(a, chunks=BLOCKS).map_overlap(np.tanh, depth=1, boundary="none"),
    "svd": lambda da, a: da.linalg.svd(da.from_array(a[:20], chunks=(20, 8)))[1],
    "histogram": lambda da, a: da.histogram(da.from_array(a, chunks=BLOCKS), bins=5, range=(-3, 3))[0],
    "where, with the hosted array itself": lambda da, a: da.where(da.from_array(a, chunks=BLOCKS) > 0, a, 0),
    "hosted on the right": lambda da, a: da.ones(a.shape, chunks=BLOCKS) + a,
    "hosted on the left": lambda da, a: a - da.ones(a.shape, chunks=BLOCKS),
    "stack": lambda da, a: da.stack([a, a]),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(da: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: np.asarray(CALLS[name](da, a).compute(scheduler="sync")), matrices, rtol=1e-12)


def test_a_write_between_two_computations_is_seen(da: Any, hosted: Maker) -> None:
    a = hosted(np.zeros((40, 40)))
    before = da.from_array(a, chunks=BLOCKS)
    assert before.sum().compute(scheduler="sync") == 0
    a[3, 3] = 5
    assert da.from_array(a, chunks=BLOCKS).sum().compute(scheduler="sync") == 5
    # As of a data set in a file, and other than of an ndarray, Dask has no copy.
    assert before.sum().compute(scheduler="sync") == 5


def test_copies_are_copies_for_everybody_else(da: Any, hosted: Maker) -> None:
    a = hosted(np.zeros((40, 40)))
    lazy = da.from_array(a, chunks=BLOCKS)

    def from_array(x: Any) -> Any:
        return x.copy()

    for copy in (
        a.copy(),
        from_array(a),
        np.array(a),
        lazy.map_blocks(lambda block: block.copy()).compute(scheduler="sync"),
    ):
        assert type(copy) is np.ndarray
        copy[0, 0] = 1
    assert a[0, 0] == 0


def test_names_tell_one_state_from_the_next(da: Any, dask: Any, hosted: Maker) -> None:
    """What Dask remembers under a name, in a cache or on a cluster, must not stand for what was written later."""
    a = hosted(np.zeros((40, 40)))
    name, token = da.from_array(a, chunks=BLOCKS).name, dask.base.tokenize(a)
    total = dask.delayed(np.sum, pure=True)
    key = total(a).key
    assert (da.from_array(a, chunks=BLOCKS).name, dask.base.tokenize(a), total(a).key) == (name, token, key)
    assert len({token, dask.base.tokenize(a[:20]), dask.base.tokenize(a[20:]), dask.base.tokenize(a.T)}) == 4
    a[3, 3] = 5
    assert da.from_array(a, chunks=BLOCKS).name != name
    assert dask.base.tokenize(a) != token
    assert total(a).key != key
    assert total(a).compute(scheduler="sync") == 5


def test_threads(da: Any, dask: Any, matrices: Pairs) -> None:
    with ThreadPool(2) as pool:
        with dask.config.set(pool=pool, scheduler="threads"):
            assert_alike(lambda a: da.from_array(a, chunks=BLOCKS).std(axis=1).compute(), matrices, rtol=1e-12)
        pool.close()
        pool.join()


@pytest.mark.slow
def test_processes_are_sent_handles(da: Any, dask: Any, matrices: Pairs) -> None:
    whole = {"whole": matrices["whole"]}
    with dask.config.set({"multiprocessing.context": "fork", "num_workers": 2}):
        assert_alike(lambda a: dask.delayed(np.sort)(a).compute(scheduler="processes"), whole)


def test_storing_into_a_hosted_array(da: Any, hosted: Maker) -> None:
    a, values = hosted(np.zeros((40, 40))), np.arange(1600.0).reshape(40, 40)
    da.from_array(values, chunks=BLOCKS).store(a, scheduler="sync")
    assert_equal(a.copy(), values)
