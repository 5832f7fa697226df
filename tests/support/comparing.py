"""Comparing a result with the one NumPy gives: type, dtype, shape and values."""

from typing import Any

import numpy as np


def assert_same(result: Any, expected: Any, what: str = "result") -> None:
    """Assert that `result` is what `expected` is, of exactly the same type.

    Arrays and NumPy scalars must agree in type, dtype (byte order included), shape and values, where NaN equals NaN and
    NaT equals NaT. Tuples (named ones too), lists and dicts are compared member by member. Strides, flags and the sign
    of a zero do not matter.
    """
    assert type(result) is type(expected), f"{what}: type {type(result)!r}, expected {type(expected)!r}"
    if isinstance(expected, np.ma.MaskedArray):
        _assert_same_arrays(np.ma.getmaskarray(result), np.ma.getmaskarray(expected), f"mask of {what}")
        _assert_same_arrays(result.filled(), expected.filled(), what)
    elif isinstance(expected, np.ndarray | np.generic):
        _assert_same_arrays(np.asarray(result), np.asarray(expected), what)
    elif isinstance(expected, tuple | list):
        assert len(result) == len(expected), f"{what}: {len(result)} members, expected {len(expected)}"
        for i, (ours, theirs) in enumerate(zip(result, expected, strict=True)):
            assert_same(ours, theirs, f"{what}[{i}]")
    elif isinstance(expected, dict):
        assert list(result) == list(expected), f"{what}: keys {list(result)!r}, expected {list(expected)!r}"
        for key in expected:
            assert_same(result[key], expected[key], f"{what}[{key!r}]")
    else:
        # The second half is true of NaN only (float, complex, Decimal), which differs from itself.
        both_nan = expected != expected and result != result
        assert both_nan or result == expected, f"{what}: {result!r}, expected {expected!r}"


def _assert_same_arrays(result: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert result.dtype == expected.dtype, f"{what}: dtype {result.dtype!r}, expected {expected.dtype!r}"
    assert result.shape == expected.shape, f"{what}: shape {result.shape}, expected {expected.shape}"
    if expected.dtype.names is not None:
        # Field by field, because == on records takes NaN for unequal and ignores nothing.
        for name in expected.dtype.names:
            _assert_same_arrays(result[name], expected[name], f"{what}[{name!r}]")
    elif expected.dtype == object:
        for index in np.ndindex(expected.shape):
            assert_same(result[index], expected[index], f"{what}[{index}]")
    else:
        np.testing.assert_array_equal(result, expected, err_msg=what, strict=True)
