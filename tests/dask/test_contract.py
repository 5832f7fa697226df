"""The contract of engines, kept by a cluster of two workers."""

from collections.abc import Iterator

import pytest

from arrayhost.testing import ContractArrays, EngineContract
from tests.dask.conftest import KEPT

pytestmark = pytest.mark.census_ignore(KEPT, reason="Dask's client keeps threads and connections")


@pytest.fixture(scope="module")
def manager(cluster: str) -> Iterator[ContractArrays]:
    manager: ContractArrays = ContractArrays.connect(cluster)
    manager.ones(1).sum()
    manager.Counter()  # type: ignore[attr-defined]  # starts the host beside the cluster
    yield manager
    manager.client.close()


class TestCluster(EngineContract):
    pass
