"""Each scenario fails when the mechanism that it is about is switched off: none of them passes by itself."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayHostError
from arrayhost.client import session
from arrayhost.client.telling import LeaseChannel
from arrayhost.host.server import Server
from arrayhost.host.store import Store
from arrayhost.sync import filelocks, guards
from arrayhost.sync.guards import Guard, Hold
from tests.faults import test_atomicity, test_flat, test_forks, test_interrupts, test_kills
from tests.faults.harness import IS_LONG, Run, report, scaled
from tests.process import test_sections
from tests.support import Census, Watchdog

pytestmark = [
    pytest.mark.slow,
    pytest.mark.watchdog(60),
    pytest.mark.census_ignore(".*", reason="what was switched off is what keeps things from being left"),
]


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def _lock_always(fd: int, request: bytes) -> bool:
    """Say that the lock is ours."""
    return True


def _odd_never(self: Hold) -> None:
    """Begin or end a write without telling readers."""


def _release_without_lease(self: Store, holder: object) -> None:
    """Keep what a dead client held."""


class _Sticky(threading.local):
    """A thread's place for its connection, from which none can be taken out."""

    connection = None

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None:
            super().__setattr__(name, value)


def _leave_in_a_child(run: Run) -> None:
    with test_sections.Arrays() as manager:
        manager["a"] = np.zeros(10)
        test_sections.test_leaving_the_section_in_the_child_frees_nothing(manager)


class _Unlisted(dict[int, Hold]):
    """What is held, without telling a child of it."""

    def values(self) -> Any:
        return ()


# What is switched off: where, its name, what stands there instead; the scenario that must notice, and within how many
# rounds. One history in four shows that locks do not exclude.
SWITCHES: dict[str, tuple[Any, str, Any, Callable[[Run], None], int]] = {
    "locks exclude": (guards, "try_lock", _lock_always, test_atomicity.check_atomicity, 100),
    "writes are told to readers": (Hold, "begin_write", _odd_never, test_kills.kill_clients, 300),
    "dead writers are noticed": (Guard, "_note_dead_writer", _nothing, test_kills.kill_clients, 300),
    "a dead client's leases end": (Store, "drop_holder", _release_without_lease, test_kills.kill_clients, 20),
    "a dead client's session ends": (Server, "_end_session", _nothing, test_kills.kill_clients, 10),
    "a host ends with its starter": (Server, "_parent_ended", _nothing, test_kills.kill_starters, 5),
    "a connection is out of reach while it is used": (
        session, "_Local", _Sticky, test_interrupts.interrupt, 400,
    ),
    "a lock file ends with its owner, and in a child": (
        filelocks.OpenLockFile, "close", _nothing, test_forks.outlive_a_holder, 3,
    ),
    "a child has no part in its parent's sections": (guards, "_active", _Unlisted(), _leave_in_a_child, 1),
    "a child has connections of its own": (
        session.Session, "after_fork_in_child", _nothing, test_forks.fork_from_threads, 6,
    ),
    "what died is told to the host": (LeaseChannel, "send_outbox", _nothing, test_flat.cycle, 400),
}  # fmt: skip


# The others wait for ten seconds and more until they are sure that something is left, or hang.
_QUICK = {"locks exclude", "a child has no part in its parent's sections"}
_SLOW = pytest.mark.skipif(not IS_LONG, reason="part of make faults")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in _QUICK else _SLOW) for name in SWITCHES])
def test_a_scenario_notices(
    run: Run, monkeypatch: pytest.MonkeyPatch, census: Census, watchdog: Watchdog, name: str
) -> None:
    where, attribute, instead, scenario, n = SWITCHES[name]
    monkeypatch.setattr(where, attribute, instead)
    try:
        with pytest.raises((AssertionError, ArrayHostError, EOFError, pytest.fail.Exception)) as caught:
            scenario(scaled(run, n))
        report(f"  without it: {(str(caught.value) or repr(caught.value)).splitlines()[0][:150]}")
    finally:
        # To hang is one way of noticing, and must not count against this test.
        watchdog.arm(30.0)
        monkeypatch.undo()
        census.kill_new_processes()
