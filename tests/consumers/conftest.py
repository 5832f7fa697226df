"""Hosted arrays for the libraries: mapped, and of a host that is reached over TCP."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from arrayhost import HostedArray
from tests.support.remote import LINKS, managed

Maker = Callable[[np.ndarray], HostedArray]


class Pair(NamedTuple):
    """A hosted array or view, and the same view of an ndarray with the same values."""

    hosted: HostedArray
    plain: np.ndarray


Pairs = dict[str, Pair]


VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda a: a,
    "part": lambda a: a[5:-3],
    "strided": lambda a: a[1::2],
    "reversed": lambda a: a[::-1],
}


@pytest.fixture(scope="module", params=LINKS)
def link(request: pytest.FixtureRequest) -> str:
    """How this process is connected with the host."""
    return str(request.param)


@pytest.fixture(scope="module")
def hosted(link: str) -> Iterator[Maker]:
    """Host an ndarray and return its proxy."""
    with managed(link) as manager:
        yield manager.array


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
