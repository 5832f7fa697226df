"""h5py and zarr: hosted arrays written to files, and read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_equal, library

h5py = library("h5py")
# The first write starts the event loop that zarr keeps in a thread.
zarr = library("zarr", lambda zarr: zarr.array(np.zeros(3))[:])

ZARR_THREADS = pytest.mark.census_ignore(r"Thread\(asyncio_", reason="zarr's event loop starts more when it has to")


def test_h5py(h5py: Any, matrices: Pairs, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        for name, (a, x) in matrices.items():
            group = file.create_group(name)
            assert_equal(group.create_dataset("contiguous", data=a)[:], x)
            assert_equal(group.create_dataset("packed", data=a, chunks=(8, 8), compression="gzip")[:], x)
            group["assigned"] = a
            assert_equal(group["assigned"][:], x)
            empty = group.create_dataset("empty", shape=x.shape, dtype="f4")
            empty[3:9] = a[3:9]
            assert_equal(empty[3:9], x[3:9].astype("f4"))
            group.attrs["row"] = a[0]
            assert_equal(group.attrs["row"], x[0])


def test_h5py_other_dtypes(h5py: Any, hosted: Maker, tmp_path: Path) -> None:
    records = np.zeros(5, dtype=[("p", "i4"), ("q", "f8")])
    records["p"] = range(5)
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        for i, x in enumerate([records, np.arange(5) > 2, np.array([b"ab", b"c"]), np.arange(5, dtype="c16")]):
            assert_equal(file.create_dataset(str(i), data=hosted(x))[:], x)


@pytest.mark.census_ignore("memfd:arrayhost:locks", reason="a lock file is opened when first used, and kept")
def test_reading_from_h5py_into_the_array(h5py: Any, hosted: Maker, tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    a = hosted(np.zeros((3, 4)))
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        dataset = file.create_dataset("values", data=values)
        a[...] = dataset
        assert_equal(a.copy(), values)
        a.fill(0)
        np.copyto(a, dataset)
        assert_equal(a.copy(), values)
        a.fill(0)
        with a.write() as x:
            dataset.read_direct(x)
    assert_equal(a.copy(), values)


@ZARR_THREADS
@pytest.mark.census_ignore("socket:", reason="over TCP, threads that zarr keeps have connections of their own")
@pytest.mark.parametrize("chunks", [(60, 60), (8, 16)])
def test_zarr(zarr: Any, matrices: Pairs, tmp_path: Path, chunks: tuple[int, int]) -> None:
    for name, (a, x) in matrices.items():
        assert_equal(zarr.array(a, chunks=chunks)[:], x)
        stored = zarr.create_array(tmp_path / name, data=a, chunks=chunks)
        assert_equal(stored[:], x)
        stored[3:9] = a[5:11]
        assert_equal(zarr.open_array(tmp_path / name)[3:9], x[5:11])
        stored.set_orthogonal_selection(([0, 2], slice(None)), a[:2])
        assert_equal(stored[2], x[1])


@ZARR_THREADS
def test_reading_from_zarr_into_the_array(zarr: Any, hosted: Maker) -> None:
    values = np.arange(12.0).reshape(3, 4)
    a = hosted(np.zeros((3, 4)))
    a[...] = zarr.array(values)
    assert_equal(a.copy(), values)
