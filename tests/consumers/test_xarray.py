"""xarray: labelled arrays and datasets on hosted arrays."""

from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_alike, assert_equal, library

xr = library("xarray")

DIMENSIONS = ("x", "y")
CALLS = {
    "DataArray": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS),
    "hosted coordinates": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS, coords={"x": a[:, 0]}).sortby("x"),
    "Variable": lambda xr, a: xr.Variable(DIMENSIONS, a),
    "Dataset": lambda xr, a: xr.Dataset({"a": (DIMENSIONS, a), "v": ("x", a[:, 0])}).mean(),
    "values": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).values,
    "to_numpy": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).to_numpy(),
    "sum": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).sum("x"),
    "std": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).std(),
    "median": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).median("y"),
    "isel": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS)[2:9:3, 4],
    "vectorised selection": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS)[[3, 1, 1], 2],
    "where": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).where(a > 0),
    "groupby": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS, coords={"x": np.arange(len(a)) % 3}).groupby("x").mean(),
    "sum with itself": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS) + xr.DataArray(a[:, 0], dims="x"),
    "hosted on the left": lambda xr, a: a * xr.DataArray(a, dims=DIMENSIONS),
    "transposed": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).T,
    "rolling": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).rolling(x=3).mean(),
    "concat": lambda xr, a: xr.concat([xr.DataArray(a, dims=DIMENSIONS)] * 2, "x"),
    "dot": lambda xr, a: xr.dot(*[xr.DataArray(a, dims=DIMENSIONS)] * 2, dim="x"),
    "coarsen": lambda xr, a: xr.DataArray(a[:20], dims=DIMENSIONS).coarsen(x=2).mean(),
    "a ufunc": lambda xr, a: xr.apply_ufunc(np.square, xr.DataArray(a, dims=DIMENSIONS)),
    "to pandas": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS, name="a").to_dataframe(),
    "by dask": lambda xr, a: xr.DataArray(a, dims=DIMENSIONS).chunk(x=10).max("y").compute(scheduler="sync"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(xr: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: CALLS[name](xr, a), matrices)


def test_it_keeps_the_proxy_and_writes_through_it(xr: Any, hosted: Maker) -> None:
    values = np.arange(12.0).reshape(3, 4)
    a = hosted(values)
    labelled = xr.DataArray(a, dims=DIMENSIONS)
    a[0, 0] = 7
    assert labelled[0, 0].item() == 7
    labelled[1, :] = 5.0
    values[0, 0], values[1] = 7, 5
    assert_equal(a.copy(), values)
    assert_equal(labelled, xr.DataArray(values, dims=DIMENSIONS))
