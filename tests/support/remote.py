"""The suites that run with mapped arrays and over TCP: which tests that are, and how many of them run by default.

A fixture with the parameters `LINKS` makes every test that uses it two: one with proxies that map the memory, one with
a host that is reached over TCP. Of the latter a few run, others each time; ``ARRAYHOST_REMOTE=all`` runs them all, and
``ARRAYHOST_REMOTE=none`` leaves them out.
"""

import contextlib
import os
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from arrayhost import ArrayManager

MAPPED, TCP = "mapped", "tcp"
LINKS = [MAPPED, TCP]
# One in so many of each file's tests over TCP runs by default, and at least one.
ONE_IN = 12

HOW_MANY = os.environ.get("ARRAYHOST_REMOTE", "some")
ALL_REMOTE = HOW_MANY == "all"
# pytest-xdist's name for the run comes second: its workers have to choose the same tests.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID")
SEED = int(os.environ.get("ARRAYHOST_SEED") or random.Random(_RUN).randrange(2**32))


@contextlib.contextmanager
def managed(link: str, kind: type[ArrayManager] = ArrayManager) -> Iterator[ArrayManager]:
    """Start a host and yield a manager that is linked to it in this way; all its connections have been made.

    Its key is the one that all processes of a program share, workers that libraries start too.
    """
    with kind(listen=() if link == MAPPED else "tcp://127.0.0.1:0") as local:
        manager = local
        if link == TCP:
            manager = kind(local.network_addresses[0])
            manager.connect()
            with manager.ones(1).write() as x:
                x[0] = 2
        manager.zeros(1)[0] = 1
        yield manager
        if link == TCP:
            manager._engine.session.close()  # type: ignore[union-attr]  # connected above


def is_remote(item: pytest.Item) -> bool:
    """Whether a test is one of those over TCP."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("link") == TCP


def chosen(items: list[pytest.Item]) -> set[pytest.Item]:
    """The tests over TCP that are to run, of all that were collected."""
    if HOW_MANY not in ("all", "some", "none"):
        raise pytest.UsageError(f"ARRAYHOST_REMOTE={HOW_MANY}: expected all, some or none")
    by_file: dict[object, list[pytest.Item]] = defaultdict(list)
    for item in filter(is_remote, items):
        by_file[item.path].append(item)
    share = {"all": 1.0, "some": 1 / ONE_IN, "none": 0.0}[HOW_MANY]
    rng = random.Random(SEED)
    found: set[pytest.Item] = set()
    for path in sorted(by_file, key=str):
        of_file = by_file[path]
        found.update(rng.sample(of_file, min(len(of_file), max(round(len(of_file) * share), HOW_MANY == "some"))))
    return found
