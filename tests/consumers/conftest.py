"""Hosted arrays for the libraries, all from one fixture: the same tests can be run with another kind of proxy."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, connect

Maker = Callable[[np.ndarray], HostedArray]


class Pair(NamedTuple):
    """A hosted array or view, and the same view of an ndarray with the same values."""

    hosted: HostedArray
    plain: np.ndarray


Pairs = dict[str, Pair]


@contextlib.contextmanager
def mapped() -> Iterator[Maker]:
    """Proxies that map the array's memory, as every process on the host's machine gets them."""
    with ArrayManager() as manager:
        manager.ones(1).sum()  # the connection is made now
        yield manager.array


@contextlib.contextmanager
def over_tcp() -> Iterator[Maker]:
    """Proxies of a host that is reached over TCP: no memory of the array's is here."""
    with ArrayManager(authkey=b"consumers", listen="tcp://127.0.0.1:0") as manager:
        remote = connect(manager.network_addresses[0], b"consumers")
        with remote.ones(1).write():  # both of its connections are made now
            remote.ones(1).sum()
        yield remote.array


# A way to make proxies is a row: a context manager that gives a function from ndarray to proxy.
MAKERS: dict[str, Callable[[], contextlib.AbstractContextManager[Maker]]] = {"mapped": mapped}
if os.environ.get("ARRAYHOST_REMOTE") == "all":
    # Not by default: worker processes that libraries start have no key, and some tests expect mapped memory.
    MAKERS["tcp"] = over_tcp

VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda a: a,
    "part": lambda a: a[5:-3],
    "strided": lambda a: a[1::2],
    "reversed": lambda a: a[::-1],
}


@pytest.fixture(scope="module", params=list(MAKERS))
def hosted(request: pytest.FixtureRequest) -> Iterator[Maker]:
    """Host an ndarray and return its proxy."""
    with MAKERS[request.param]() as maker:
        yield maker


def _views(maker: Maker, values: np.ndarray, views: dict[str, Callable[[Any], Any]]) -> Pairs:
    a = maker(values)
    pairs = {name: Pair(view(a), view(values)) for name, view in views.items()}
    assert all(isinstance(pair.hosted, HostedArray) for pair in pairs.values())
    return pairs


# Hosted once for a module: what a test's own fixture makes would still be mapped when the census is taken.
@pytest.fixture(scope="module")
def matrices(hosted: Maker) -> Pairs:
    """Float64, two dimensions, at least 20 in each: a whole array, and views of it by name."""
    return _views(hosted, np.random.default_rng(3).normal(size=(60, 30)), {**VIEWS, "transposed": lambda a: a.T})


@pytest.fixture(scope="module")
def vectors(hosted: Maker) -> Pairs:
    """Float64, one dimension, at least 50 elements: a whole array, and views of it by name."""
    return _views(hosted, np.random.default_rng(5).normal(size=150), VIEWS)
