"""One host for each module of this folder."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager


@pytest.fixture(scope="module")
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        running.zeros(1)[0] = 1  # makes every connection that the module needs
        yield running


@pytest.fixture
def host(manager: ArrayManager) -> Callable[[np.ndarray], Any]:
    """Host an ndarray, in its memory order."""
    return manager.array
