"""One host for each module of this folder, with proxies that map its arrays and once more over TCP."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager
from tests.support.remote import LINKS, managed


@pytest.fixture(scope="module", params=LINKS)
def link(request: pytest.FixtureRequest) -> str:
    """How this process is connected with the host."""
    return str(request.param)


@pytest.fixture(scope="module")
def manager(link: str) -> Iterator[ArrayManager]:
    with managed(link) as running:
        yield running


@pytest.fixture
def host(manager: ArrayManager) -> Callable[[np.ndarray], Any]:
    """Host an ndarray, in its memory order."""
    return manager.array
