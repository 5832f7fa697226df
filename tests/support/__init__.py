"""Helpers for tests that start real processes: waiting, comparing, running Python, counting what is left behind."""

from tests.support.census import Census
from tests.support.comparing import assert_same
from tests.support.processes import Child, abort_all, child, descendants, is_running, run_python
from tests.support.waiting import wait_until
from tests.support.watchdog import Watchdog, WatchdogExpired

__all__ = [
    "Census",
    "Child",
    "Watchdog",
    "WatchdogExpired",
    "abort_all",
    "assert_same",
    "child",
    "descendants",
    "is_running",
    "run_python",
    "wait_until",
]
