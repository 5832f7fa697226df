"""One host for each module of this folder that wants no other."""

from collections.abc import Iterator

import pytest

from arrayhost import ArrayManager, locked


@pytest.fixture(scope="module")
def manager() -> Iterator[ArrayManager]:
    """A host, connected to; the lock files that tests will need are open, so that none of them seems to leave one."""
    with ArrayManager() as running:
        held = [running.zeros(1) for _ in range(32)]
        with locked(*held):
            held[0][0] = 1
        yield running
