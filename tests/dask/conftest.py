"""A cluster for the tests of this folder, in a process of its own: each test's census sees only its own part."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.support import Child, child, is_running

FULL = os.environ.get("ARRAYHOST_DASK") == "full"
"""Whether the long forms of these tests are to be run."""

# What a Dask client keeps for the next time: for ``census_ignore``.
KEPT = r"Dask-Offload|descriptor \d+: socket:"

CLUSTER = """
import sys
from arrayhost import ArrayManager

if __name__ == "__main__":
    with ArrayManager(sys.argv[1]) as manager:
        print("address", manager.address, flush=True)
        for line in sys.stdin:
            if not line.startswith("scale"):
                break
            manager._engine._trial.cluster.scale(int(line.split()[1]))
"""


@contextlib.contextmanager
def running_cluster(query: str = "workers=2") -> Iterator[tuple[str, Child]]:
    """A trial cluster: its address, and the process that has its scheduler."""
    with child(CLUSTER, f"dask://local?{query}", timeout=60) as process:
        yield process.expect("address"), process
        if is_running(process.pid):
            process.send()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of two workers."""
    with running_cluster() as (address, _):
        yield address
