"""pyarrow: arrays, tables and files from hosted arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_alike, assert_equal, library

pa = library("pyarrow", lambda pa: pa.array([1.0]).sum())

CALLS = {
    "array": lambda pa, v: pa.array(v),
    "array of a type": lambda pa, v: pa.array(v, type=pa.float32()),
    "table": lambda pa, v: pa.table({"v": v, "w": v}),
    "chunked_array": lambda pa, v: pa.chunked_array([v, v[:3]]),
    "nested": lambda pa, v: pa.FixedSizeListArray.from_arrays(v[:10], 5),
    "scalar": lambda pa, v: pa.scalar(v[3]),
    "sum": lambda pa, v: pa.array(v).sum(),
    "tensor": lambda pa, v: pa.Tensor.from_numpy(v.copy()),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(pa: Any, vectors: Pairs, name: str) -> None:
    assert_alike(lambda v: CALLS[name](pa, v), vectors)


def test_other_dtypes(pa: Any, hosted: Maker) -> None:
    for values in (
        np.arange("2020-01-01", "2020-03-01", dtype="M8[D]"),
        np.arange(0, 5, dtype="M8[ns]"),
        np.arange(5, dtype="m8[s]"),
        np.arange(5) > 2,
        np.array(["ab", "c"]),
        np.array([b"ab", b"c"]),
        np.arange(5, dtype="f2"),
        np.arange(5, dtype="u1"),
    ):
        array, expected = pa.array(hosted(values)), pa.array(values)
        assert array.type == expected.type
        assert array.equals(expected)


def test_errors_are_those_for_an_ndarray(pa: Any, hosted: Maker) -> None:
    for values in (np.zeros((3, 3)), np.zeros(3, dtype=[("p", "i4")]), np.zeros(3, dtype="c16")):
        with pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError)) as expected:
            pa.array(values)
        with pytest.raises(expected.type, match=str(expected.value)[:20]):
            pa.array(hosted(values))


def test_a_file(pa: Any, vectors: Pairs, tmp_path: Path) -> None:
    from pyarrow import feather

    for name, (v, x) in vectors.items():
        feather.write_feather(pa.table({"v": v}), str(tmp_path / name))
        assert_equal(feather.read_table(tmp_path / name)["v"].to_numpy(), x)
