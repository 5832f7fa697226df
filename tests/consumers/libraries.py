"""The libraries as fixtures, and comparing what they return."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support import assert_same

if TYPE_CHECKING:
    from tests.consumers.conftest import Pairs


def library(name: str, warm_up: Callable[[ModuleType], object] | None = None, *, skip: str = "") -> Any:
    """Make a fixture that imports a library.

    Parameters
    ----------
    name : str
        The module.
    warm_up : callable, optional
        Given the module, starts what the library starts once and keeps (threads, say), before the census of a test.
    skip : str
        Why the library may be missing; empty if that is a failure.

    Notes
    -----
    Nothing is imported when tests are collected: these libraries take seconds to import, and stay.
    """

    @pytest.fixture(scope="module")
    def imported() -> ModuleType:
        if skip:
            module: ModuleType = pytest.importorskip(name, reason=skip)
        else:
            module = importlib.import_module(name)
        if warm_up is not None:
            warm_up(module)
        return module

    return imported


NO_TORCH = "torch is installed where it has a small CPU build: on Python 3.11"


def assert_alike(call: Callable[[Any], Any], pairs: "Pairs", *, rtol: float = 0.0) -> None:
    """Assert that `call` gives the same for each hosted array as for the ndarray beside it; see `assert_equal`."""
    for name, (hosted, plain) in pairs.items():
        try:
            assert_equal(call(hosted), call(plain), rtol=rtol)
        except Exception as error:
            error.add_note(f"given: {name}")
            raise


def assert_equal(result: Any, expected: Any, *, rtol: float = 0.0) -> None:
    """Assert that a library's result is the expected one: by its own testing tools, or by `assert_same`.

    With `rtol`, floating-point arrays of NumPy's may differ by that: libraries that compute in several threads add up
    in an order that changes from run to run.
    """
    assert type(result) is type(expected)
    compare = _COMPARISONS.get((type(expected).__module__.partition(".")[0], type(expected).__name__))
    if compare is not None:
        compare(result, expected)
    elif isinstance(expected, tuple | list):
        assert len(result) == len(expected)
        for ours, theirs in zip(result, expected, strict=True):
            assert_equal(ours, theirs, rtol=rtol)
    elif rtol and isinstance(expected, np.ndarray | np.generic | float):
        assert_same(np.asarray(result).dtype, np.asarray(expected).dtype)
        np.testing.assert_allclose(result, expected, rtol=rtol, atol=rtol, strict=True)
    else:
        assert_same(result, expected)


def _sparse(result: Any, expected: Any) -> None:
    assert result.dtype == expected.dtype
    assert_same(result.toarray(), expected.toarray())


def _arrow(result: Any, expected: Any) -> None:
    assert result.equals(expected), f"{result} is not {expected}"


def _torch(result: Any, expected: Any) -> None:
    sys.modules["torch"].testing.assert_close(result, expected, rtol=0, atol=0)


_COMPARISONS: dict[tuple[str, str], Callable[[Any, Any], None]] = {
    **{
        ("pandas", name): lambda ours, theirs, name=name: getattr(
            sys.modules["pandas"].testing, f"assert_{name.lower()}_equal".replace("dataframe", "frame")
        )(ours, theirs)
        for name in ("DataFrame", "Series", "Index")
    },
    **{
        ("xarray", name): lambda ours, theirs: sys.modules["xarray"].testing.assert_identical(ours, theirs)
        for name in ("DataArray", "Dataset", "Variable")
    },
    **{("scipy", f"{kind}_{form}"): _sparse for kind in ("csr", "csc", "coo", "dia") for form in ("array", "matrix")},
    **{("pyarrow", name): _arrow for name in ("DoubleArray", "Int64Array", "Table", "ChunkedArray", "Tensor")},
    ("torch", "Tensor"): _torch,
}
