"""A cluster for the tests of this folder, in a process of its own: each test's census sees only its own part."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.support import Child, child

# What a Dask client keeps for the next time: for ``census_ignore``.
KEPT = r"Dask-Offload|descriptor \d+: socket:"

CLUSTER = """
import sys
from arrayhost import ArrayManager

if __name__ == "__main__":
    with ArrayManager(sys.argv[1]) as manager:
        print("address", manager.address, flush=True)
        input()
"""


@contextlib.contextmanager
def running_cluster(query: str = "workers=2") -> Iterator[tuple[str, Child]]:
    """A trial cluster: its address, and the process that has its scheduler."""
    with child(CLUSTER, f"dask://local?{query}", timeout=60) as process:
        yield process.expect("address"), process
        process.send()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of two workers."""
    with running_cluster() as (address, _):
        yield address
