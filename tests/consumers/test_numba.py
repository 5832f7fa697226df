"""numba: compiled functions on the mapped memory, to read and, in a section, to write."""

from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_alike, assert_equal, library

numba = library("numba")


@pytest.fixture(scope="module")
def total(numba: Any) -> Any:
    @numba.njit
    def total(x: Any) -> float:
        result = 0.0
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                result += x[i, j] * (i - j)
        return result

    return total


def test_reading(total: Any, matrices: Pairs) -> None:
    assert_alike(lambda a: total(np.asarray(a)), matrices)


def test_compiled_ufuncs_take_proxies(numba: Any, matrices: Pairs) -> None:
    @numba.vectorize(["float64(float64, float64)"])
    def twice_minus(x: float, y: float) -> float:
        return 2 * x - y

    assert_alike(lambda a: twice_minus(a, a[0]), matrices)
    assert_alike(lambda a: twice_minus.reduce(a), matrices)


@pytest.mark.census_ignore("memfd:arrayhost:locks", reason="a lock file is opened when first used, and kept")
def test_writing_in_a_section(numba: Any, hosted: Maker) -> None:
    @numba.njit
    def add_positions(x: Any) -> None:
        for i in range(x.shape[0]):
            x[i] += i

    a = hosted(np.zeros((5, 4)))
    with a.write() as x:
        add_positions(x[:, 1])
    assert_equal(a.copy(), np.array([[0, i, 0, 0] for i in range(5)], float))
    with pytest.raises(numba.TypingError, match="Cannot modify readonly array"):
        add_positions(np.asarray(a[0]))
