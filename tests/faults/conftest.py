"""Fixtures of the fault tests."""

import random

import pytest

from tests.faults.harness import Run, report
from tests.support import Watchdog


@pytest.fixture
def run(request: pytest.FixtureRequest, seed: int, watchdog: Watchdog) -> Run:
    """The circumstances of a scenario; its number of rounds is for the test to set."""
    report(f"{request.node.name}: ARRAYHOST_SEED={seed}")
    return Run(0, random.Random(seed), watchdog)
