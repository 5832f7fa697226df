"""The contract of engines, kept by a host."""

from collections.abc import Iterator

import pytest

from arrayhost.testing import ContractArrays, EngineContract

pytestmark = pytest.mark.census_ignore("memfd:arrayhost:locks", reason="each lock file is opened when first used")


@pytest.fixture(scope="module")
def manager() -> Iterator[ContractArrays]:
    with ContractArrays() as manager:
        manager.ones(1).sum()  # the connection is made now
        yield manager


class TestHost(EngineContract):
    pass
