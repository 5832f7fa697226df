"""NumPy's functions and ufuncs on the arrays of a host that is reached over TCP.

A third of them, another one each time; ``ARRAYHOST_REMOTE=all`` runs them all.
"""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, connect
from tests.conformance.outcomes import check
from tests.conformance.test_functions import FUNCTIONS, TABLE, name_of
from tests.conformance.test_ufuncs import UFUNCS, made
from tests.conformance.ways import WAYS

_KEY = b"conformance over the network"
_WAYS = [way for way in WAYS if way.name in ("on_host", "strided view on_host")]
# Known differences, with their reason.
_NOT_OVER_TCP = {
    "numpy.lib.stride_tricks:as_strided": "would show a client any memory of the host",
    "numpy.lib._stride_tricks_impl:as_strided": "the same, as NumPy names it inside",
}


def _third(names: list[Any]) -> list[Any]:
    if os.environ.get("ARRAYHOST_REMOTE") == "all":
        return names
    return random.Random(_SEED).sample(names, len(names) // 3)


_SEED = int(os.environ.get("ARRAYHOST_SEED") or random.SystemRandom().randrange(2**32))


@pytest.fixture(scope="module")
def remote() -> Iterator[Callable[[np.ndarray], Any]]:
    """Host an ndarray over TCP."""
    with ArrayManager(authkey=_KEY, listen="tcp://127.0.0.1:0") as manager:
        far = connect(manager.network_addresses[0], _KEY)
        far.zeros(1)[0] = 1
        yield far.array


@pytest.fixture(autouse=True)
def repeat(record_property: Any) -> None:
    print(f"repeat with ARRAYHOST_SEED={_SEED}")
    record_property("seed", _SEED)


@pytest.mark.parametrize("function", _third([f for f in FUNCTIONS if name_of(f) not in _NOT_OVER_TCP]), ids=name_of)
def test_function(function: Callable[..., Any], remote: Callable[[np.ndarray], Any]) -> None:
    check([make(function) for make in TABLE[function]], _WAYS, remote)


@pytest.mark.parametrize("ufunc", _third(UFUNCS), ids=lambda ufunc: ufunc.__name__)
def test_ufunc(ufunc: np.ufunc, remote: Callable[[np.ndarray], Any]) -> None:
    check(made(ufunc), _WAYS, remote)
