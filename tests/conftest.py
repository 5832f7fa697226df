"""What every test gets: a census of what it leaves behind, a watchdog, and a private place for hosts to meet."""

import ctypes
import faulthandler
import gc
import os
import random
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from tests.support import Census, Watchdog
from tests.support.remote import SEED, chosen, is_remote
from tests.support.watchdog import real_stderr

_WATCHDOG_SECONDS = 60.0
# How long peers may take to notice that they are no longer needed; less in tests of what is left behind.
_CENSUS_SECONDS = float(os.environ.get("ARRAYHOST_CENSUS_SECONDS", "5"))
_PR_SET_CHILD_SUBREAPER = 36

_watchdog_key = pytest.StashKey[Watchdog]()
_runtime_dir_key = pytest.StashKey[str]()
_has_failed_key = pytest.StashKey[bool]()
_remote_key = pytest.StashKey[tuple[int, int]]()

# A loaded two-core machine makes any deadline a coin toss; the watchdog ends what hangs. The blob repeats a failure
# elsewhere.
hypothesis.settings.register_profile("arrayhost", deadline=None, print_blob=True)
hypothesis.settings.load_profile("arrayhost")


def pytest_configure(config: pytest.Config) -> None:
    # Orphans become children of this process, so that the census sees a host that outlived the process which started
    # it.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Every Python below us prints its stacks when aborted (by the watchdog, by run_python), and leaves no core file.
    os.environ["PYTHONFAULTHANDLER"] = "1"
    # A run in the background of a shell script starts with Ctrl-C ignored, and so would all its children: tests of it
    # would show nothing.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # A user's default host is found through this folder: a run must neither find the developer's host nor another
    # run's. The name is short because a socket's path is limited to 107 bytes.
    runtime_dir = tempfile.mkdtemp(prefix="ah-")
    config.stash[_runtime_dir_key] = runtime_dir
    os.environ["XDG_RUNTIME_DIR"] = runtime_dir
    # Here, and not in a fixture, because pytest's capture of stderr does not yet, or not again, stand in the way.
    config.stash[_watchdog_key] = Watchdog(real_stderr())


def pytest_unconfigure(config: pytest.Config) -> None:
    if (watchdog := config.stash.get(_watchdog_key, None)) is not None:
        watchdog.stop()
    shutil.rmtree(config.stash.get(_runtime_dir_key, ""), ignore_errors=True)
    # Threads that a failed test left are waited for at exit, maybe for ever.
    faulthandler.dump_traceback_later(_WATCHDOG_SECONDS, exit=True, file=real_stderr())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give pytest-timeout the times that the watchdog was given, and run the tests with large libraries last.

    A test that asked the watchdog for more time must not be ended by pytest-timeout before. The libraries stay in the
    process once imported, with threads of their own, and make every later fork and census slower.
    """
    late = [items[0].config.rootpath / "tests" / folder for folder in ("consumers", "dask")] if items else []
    items.sort(key=lambda item: any(item.path.is_relative_to(folder) for folder in late))
    _leave_out_remote(items)
    for item in items:
        marker = item.get_closest_marker("watchdog")
        if marker is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_seconds(marker) + 60.0))


def _freeze() -> None:
    """Keep what there is, modules, items and reports, out of each later garbage collection.

    The census collects after many a test, which cost more than most tests while each collection went through all that.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    _freeze()


def _leave_out_remote(items: list[pytest.Item]) -> None:
    """Of the tests that are repeated over TCP, leave those out that are not to run."""
    kept = chosen(items)
    left_out = [item for item in items if is_remote(item) and item not in kept]
    if left_out:
        config = items[0].config
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
        config.stash[_remote_key] = (len(kept), len(left_out))


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    """Say how much of what is repeated over TCP runs."""
    n_kept, n_left_out = config.stash.get(_remote_key, (0, 0))
    if not n_left_out:
        return ""
    return f"over TCP: {n_kept} of {n_kept + n_left_out} tests, by ARRAYHOST_SEED={SEED}; ARRAYHOST_REMOTE=all for all"


# The watchdog may interrupt these three, whose exceptions pytest reports, and nothing between them.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with item.config.stash[_watchdog_key].interruptible():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    watchdog = item.config.stash[_watchdog_key]
    with watchdog.interruptible():
        result = yield
    watchdog.check()
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    with item.config.stash[_watchdog_key].interruptible():
        result = yield
    if nextitem is not None and nextitem.path != item.path:
        _freeze()  # the module's fixtures are gone
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_has_failed_key] = True
    return report


def _seconds(marker: pytest.Mark) -> float:
    return float(marker.args[0] if marker.args else marker.kwargs["seconds"])


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[Watchdog]:
    """End this test after 60 seconds (``@pytest.mark.watchdog(seconds)`` changes that), with all stacks on stderr."""
    watchdog = request.config.stash[_watchdog_key]
    marker = request.node.get_closest_marker("watchdog")
    watchdog.arm(_WATCHDOG_SECONDS if marker is None else _seconds(marker))
    yield watchdog
    if watchdog.disarm() and not request.node.stash.get(_has_failed_key, False):
        pytest.fail("the watchdog's time ran out in the teardown", pytrace=False)


@pytest.fixture(autouse=True)
def census(request: pytest.FixtureRequest, watchdog: Watchdog) -> Iterator[Census]:
    """Fail this test if it leaves behind a descriptor, thread, process, mapping, socket, or file in shared memory.

    Autouse fixtures are set up before a test's others and torn down after them, and wider fixtures come before both:
    what a module's fixture holds is there from the start. It must not start things lazily in the middle of a test,
    though; where that is the point, ``@pytest.mark.census_ignore(pattern, reason="...")`` lets lines that match
    `pattern` pass.
    """
    before = Census.take()
    yield before
    if request.node.stash.get(_has_failed_key, False):
        # The report holds the test's frames, and they hold what the test made: counting would tell nothing new.
        before.kill_new_processes()
        return
    ignore = [marker.args[0] for marker in request.node.iter_markers("census_ignore")]
    if leaks := before.leaks(_CENSUS_SECONDS, ignore):
        before.kill_new_processes()
        pytest.fail("left behind by this test:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture
def seed(record_property: Any) -> int:
    """The random seed of this test: new each time, shown when the test fails, or the one in ARRAYHOST_SEED."""
    seed = int(os.environ.get("ARRAYHOST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"repeat with ARRAYHOST_SEED={seed}")
    record_property("seed", seed)
    return seed


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """NumPy's generator, started from `seed`."""
    return np.random.default_rng(seed)


@pytest.fixture
def runtime_dir(request: pytest.FixtureRequest) -> Path:
    """This run's XDG_RUNTIME_DIR."""
    return Path(request.config.stash[_runtime_dir_key])
