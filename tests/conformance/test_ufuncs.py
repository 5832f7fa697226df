"""Every ufunc of NumPy's, and every method of each, on hosted arrays and on ndarrays."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing.overrides import get_overridable_numpy_ufuncs

from tests.conformance.cases import Case
from tests.conformance.cases_ufuncs import BEHIND_FUNCTIONS, WITHOUT_LOOPS, cases_of
from tests.conformance.outcomes import check
from tests.conformance.ways import WAYS, ways_over

OVERRIDABLE = get_overridable_numpy_ufuncs()
WITHOUT_CASES = BEHIND_FUNCTIONS | WITHOUT_LOOPS
# Of views on the host, which functions and dtypes are tested on, ufuncs would show nothing more.
_WAYS = [way for way in WAYS if way.name != "strided view on_host"]
UFUNCS = sorted((ufunc for ufunc in OVERRIDABLE if ufunc.__name__ not in WITHOUT_CASES), key=lambda f: f.__name__)


def made(ufunc: np.ufunc) -> list[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # finding out what shapes the outputs have
        return list(cases_of(ufunc))


def test_count() -> None:
    n_cases = sum(len(made(ufunc)) for ufunc in UFUNCS)
    print(f"{len(OVERRIDABLE)} ufuncs, {len(UFUNCS)} of them with cases, of NumPy {np.__version__}, {n_cases} cases")
    shown = {id(value) for value in vars(np).values() if isinstance(value, np.ufunc)}
    assert shown <= {id(ufunc) for ufunc in UFUNCS}


@pytest.mark.parametrize("ufunc", UFUNCS, ids=lambda ufunc: ufunc.__name__)
def test_ufunc(ufunc: np.ufunc, link: str, host: Callable[[np.ndarray], Any]) -> None:
    check(made(ufunc), ways_over(link, _WAYS), host)
