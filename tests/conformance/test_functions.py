"""Every function that NumPy lets others override, on hosted arrays and on ndarrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing.overrides import get_overridable_numpy_array_functions

from tests.conformance import cases_modules, cases_numpy
from tests.conformance.outcomes import check
from tests.conformance.ways import ways_over

TABLE = {**cases_numpy.TABLE, **cases_modules.TABLE}


def name_of(function: Callable[..., Any]) -> str:
    # numpy.char shows some functions of numpy.strings that begin with an underscore there.
    return f"{function.__module__}:{function.__name__}"


FUNCTIONS = sorted(TABLE, key=name_of)


def test_every_function_has_a_case() -> None:
    # Other libraries, and other tests, register functions there, too.
    overridable = {name for name in map(name_of, get_overridable_numpy_array_functions()) if name.startswith("numpy")}
    missing = overridable - {name_of(function) for function in TABLE}
    assert not missing, f"no case for {sorted(missing)}"
    print(f"{len(overridable)} functions of NumPy {np.__version__}, {len(TABLE)} in the table")


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_function(function: Callable[..., Any], link: str, host: Callable[[np.ndarray], Any]) -> None:
    check([make(function) for make in TABLE[function]], ways_over(link), host)
