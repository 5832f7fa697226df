"""The census, the watchdog and the process helpers: what they must not miss."""

import io
import mmap
import os
import re
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from tests.support import (
    Census,
    Watchdog,
    WatchdogExpired,
    assert_same,
    child,
    descendants,
    is_running,
    run_python,
    wait_until,
)

# Long enough for a slip to be seen, short since these leaks do not go away.
_BRIEFLY = 0.05


class TestCensus:
    def test_nothing_changed(self):
        assert Census.take().leaks(timeout=0) == []

    def test_descriptor(self):
        before = Census.take()
        with open("/dev/null") as file:
            (line,) = before.leaks(timeout=_BRIEFLY)
            assert line == f"descriptor {file.fileno()}: /dev/null"
            assert before.leaks(timeout=_BRIEFLY, ignore=["/dev/null$"]) == []
        assert before.leaks() == []

    def test_descriptor_in_a_reference_cycle_is_collected(self):
        before = Census.take()
        left, right = socket.socketpair()
        right.close()
        # A plain object, since a socket in a cycle would warn when collected.
        cycle = [os.fdopen(left.detach(), "rb", buffering=0)]
        cycle[0].close()
        assert before.leaks() == []

    def test_thread(self):
        before = Census.take()
        done = threading.Event()
        thread = threading.Thread(target=done.wait, name="forgotten")
        thread.start()
        (line,) = before.leaks(timeout=_BRIEFLY)
        assert "forgotten" in line
        done.set()
        assert before.leaks() == []

    def test_child_process(self):
        before = Census.take()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            lines = before.leaks(timeout=_BRIEFLY)
            assert [line for line in lines if line.startswith(f"process {process.pid}, ") and line.endswith(": cat")]
        assert before.leaks() == []

    def test_orphan_is_seen_killed_and_reaped(self):
        before = Census.take()
        source = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)"
        orphan = int(run_python(source).stdout)
        (line,) = before.leaks(timeout=_BRIEFLY)
        assert line.startswith(f"process {orphan}, ")
        before.kill_new_processes()
        wait_until(
            lambda: before.leaks(timeout=0) == [] and not os.path.exists(f"/proc/{orphan}"), what="the orphan's end"
        )

    def test_mapping(self):
        before = Census.take()
        descriptor = os.memfd_create("arrayhost-test")
        os.ftruncate(descriptor, 8192)
        mapping = mmap.mmap(descriptor, 8192)
        os.close(descriptor)
        lines = before.leaks(timeout=_BRIEFLY)
        assert [line for line in lines if line.startswith("mapping: 8,192 bytes more of /memfd:arrayhost-test")]
        mapping.close()
        assert before.leaks() == []

    def test_socket_is_named(self):
        before = Census.take()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0arrayhost-census-{os.getpid()}")
            lines = before.leaks(timeout=_BRIEFLY)
            assert f"unix socket held by {os.getpid()}: @arrayhost-census-{os.getpid()}" in lines
        assert before.leaks() == []

    def test_socket_of_another_run_is_not_ours(self):
        # The helper stands for a stranger: it is there before the census, and takes its socket afterwards.
        source = """
            import os, socket
            input()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"\\0arrayhost-stranger-{os.getpid()}")
            print("bound", flush=True)
            input()
        """
        with child(source) as stranger:
            before = Census.take()
            stranger.send()
            stranger.expect("bound")
            assert before.leaks(timeout=_BRIEFLY) == []
            stranger.send()

    def test_files_in_shared_memory_and_runtime_dir(self, runtime_dir):
        before = Census.take()
        paths = [f"/dev/shm/arrayhost-census-{os.getpid()}", str(runtime_dir / "socket")]
        for path in paths:
            with open(path, "w"):
                pass
        try:
            lines = before.leaks(timeout=_BRIEFLY)
        finally:
            for path in paths:
                os.unlink(path)
        assert sorted(lines) == [f"file: {paths[1]}", f"shared memory: {paths[0]}"]

    @pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
    def test_standing_helpers_of_multiprocessing_are_let_pass(self, method):
        import multiprocessing

        before = Census.take()
        process = multiprocessing.get_context(method).Process(target=os.getpid)
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()
        assert before.leaks() == []


class TestFixtures:
    """The fixtures at work, in a run of pytest below this one."""

    @pytest.fixture
    def run_tests(self, tmp_path):
        def run(source: str, *args: str) -> subprocess.CompletedProcess[str]:
            root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            # A conftest of its own in place of this one's discovery: the tests to run lie outside the rootdir.
            (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
            (tmp_path / "test_it.py").write_text(source)
            config = ["-c", os.path.join(root, "pyproject.toml"), "--rootdir", root, "-p", "no:cacheprovider"]
            runner = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
            return run_python(
                runner,
                *config,
                str(tmp_path),
                *args,
                check=False,
                env={"PYTHONPATH": root, "ARRAYHOST_CENSUS_SECONDS": "0.5"},
            )

        return run

    def test_leak_fails_the_test_that_made_it_and_no_other(self, run_tests):
        done = run_tests("""
import os, subprocess
kept = []
def test_leaks(): kept.append(subprocess.Popen(["sleep", "1000"]))
def test_clean(): pass
def test_allowed(): kept.append(os.open("/dev/zero", os.O_RDONLY))
import pytest
test_allowed = pytest.mark.census_ignore("/dev/zero", reason="kept on purpose")(test_allowed)
""")
        assert "left behind by this test:\n  process " in done.stdout.replace("E   ", "")
        assert "3 passed, 1 error" in done.stdout
        assert re.search(r"(?m)^ERROR .*::test_leaks", done.stdout)

    def test_watchdog_fails_the_test_that_hangs_and_the_run_goes_on(self, run_tests):
        done = run_tests("""
import pytest, subprocess, sys
@pytest.mark.watchdog(0.5)
def test_hangs(): subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"], check=False)
def test_next(): pass
""")
        assert "1 failed, 1 passed" in done.stdout
        assert "watchdog: 0.5 s are over" in done.stderr
        assert "in test_hangs" in done.stderr

    def test_a_teardown_that_hangs_is_one_error_and_the_run_goes_on(self, run_tests):
        done = run_tests("""
import pytest, time
torn_down = []
@pytest.fixture(scope="module")
def module(): yield
@pytest.fixture
def first():
    yield
    torn_down.append("first")
@pytest.fixture
def slow(first):
    yield
    time.sleep(1000)
@pytest.mark.watchdog(0.5)
def test_hangs_afterwards(module, slow): pass
def test_next(module): assert torn_down == ["first"]
""")
        assert "2 passed, 1 error" in done.stdout
        assert "watchdog: 0.5 s are over" in done.stderr

    def test_seed_is_shown_and_can_be_set(self, run_tests, monkeypatch):
        monkeypatch.setenv("ARRAYHOST_SEED", "42")
        done = run_tests("def test_it(seed): assert seed != 42")
        assert "repeat with ARRAYHOST_SEED=42" in done.stdout


class TestWatchdog:
    def test_dumps_kills_and_interrupts(self, tmp_path):
        with open(tmp_path / "stacks", "w+") as stream:
            watchdog = Watchdog(stream)
            try:
                watchdog.arm(0.3)
                with subprocess.Popen(["sleep", "1000"]) as process:
                    with pytest.raises(WatchdogExpired), watchdog.interruptible():
                        threading.Event().wait(30)
                    assert process.wait() == -signal.SIGABRT
                assert watchdog.disarm()
            finally:
                watchdog.stop()
            stream.seek(0)
            assert f"ending process {process.pid}" in stream.read()
            assert not descendants(process.pid)

    def test_disarmed_in_time(self):
        with open(os.devnull, "w") as stream:
            watchdog = Watchdog(stream)
            watchdog.arm(30)
            assert not watchdog.disarm()
            watchdog.stop()


class TestProcesses:
    def test_run_python(self):
        done = run_python("import sys\nprint(sys.argv[1:])", 1, "two")
        assert done.stdout == "['1', 'two']\n"

    def test_failure_shows_output(self):
        with pytest.raises(AssertionError, match=r"(?s)exit status 3.*before.*why"):
            run_python("import sys\nprint('before')\nprint('why', file=sys.stderr)\nsys.exit(3)")

    def test_timeout_shows_stacks_of_the_whole_family(self):
        source = """
            import subprocess, sys
            CHILD = "import time\\ndef child_waits(): time.sleep(1000)\\nchild_waits()"
            def parent_waits(): subprocess.run([sys.executable, "-c", CHILD])
            parent_waits()
        """
        with pytest.raises(AssertionError, match=r"still running after 1 s") as caught:
            run_python(source, timeout=1)
        assert "in parent_waits" in str(caught.value)
        assert "in child_waits" in str(caught.value)

    def test_spawn_works_in_the_script(self):
        source = """
            import multiprocessing
            def work(): print("worked", flush=True)
            if __name__ == "__main__":
                process = multiprocessing.get_context("spawn").Process(target=work)
                process.start()
                process.join()
        """
        assert run_python(source).stdout == "worked\n"

    def test_child_talks(self):
        with child("print('ready', 1)\nprint('got', input())") as helper:
            assert helper.expect("ready") == "1"
            helper.send("hello")
            assert helper.expect("got") == "hello"

    def test_child_killed(self):
        with child("print('up')\ninput()") as helper:
            helper.expect("up")
            assert is_running(helper.pid)
            assert helper.kill() == -signal.SIGKILL
            assert not is_running(helper.pid)

    def test_child_that_fails_tells_why(self):
        with pytest.raises(AssertionError, match=r"(?s)status 1.*ZeroDivisionError"):
            with child("1 / 0"):
                pass
        with pytest.raises(AssertionError, match=r"(?s)when a line was expected.*ZeroDivisionError"):
            with child("1 / 0") as helper:
                helper.expect("ready")

    def test_child_that_is_silent_shows_its_stacks(self):
        with pytest.raises(AssertionError, match=r"(?s)no line from the helper.*in silent"):
            with child("import time\ndef silent(): time.sleep(1000)\nsilent()") as helper:
                helper.read_line(timeout=1)

    def test_stopped_child_can_be_ended(self):
        with child("print('up')\ninput()", timeout=0.2) as helper:
            helper.expect("up", timeout=15)
            helper.send_signal(signal.SIGSTOP)
            with pytest.raises(AssertionError, match="still running"):
                helper.wait()

    def test_wait_until(self):
        answers = iter([0, None, "yes"])
        assert wait_until(lambda: next(answers)) == "yes"
        with pytest.raises(AssertionError, match=r"0\.01 s in vain for godot; the last answer was 0"):
            wait_until(lambda: 0, timeout=0.01, what="godot")
        start = time.monotonic()
        wait_until(lambda: time.monotonic() > start + 0.01)


class TestAssertSame:
    @pytest.mark.parametrize(
        "value",
        [
            1,
            float("nan"),
            complex("nan"),
            np.float32("nan"),
            np.datetime64("NaT", "D"),
            np.array([1.0, np.nan]),
            np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
            np.array([(1, np.nan)], dtype="i4,f8"),
            np.array([1, "a", None, float("nan")], dtype=object),
            np.array(["a", "b"]),
            np.ma.masked_array([1, 2], mask=[True, False]),
            (np.arange(3), [np.int8(1)]),
            {"a": np.zeros(2)},
            np.zeros((0, 3)),
        ],
        ids=repr,
    )
    def test_same(self, value):
        assert_same(value.copy() if isinstance(value, np.ndarray) else value, value)

    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            (1, 1.0),
            (1, True),
            (np.float64(1), 1.0),
            (np.int64(1), np.array(1)),
            (np.array([1]), np.array([1], dtype=np.int32)),
            (np.array([1], dtype="<i4"), np.array([1], dtype=">i4")),
            (np.array([1]), np.array([[1]])),
            (np.array([1, 2]), np.array([1, 3])),
            (np.array([(1, 2.0)], dtype="i4,f8"), np.array([(1, 3.0)], dtype="i4,f8")),
            (np.array([[1]]).view(np.matrix), np.array([[1]])),
            (np.ma.masked_array([1], mask=[True]), np.ma.masked_array([1], mask=[False])),
            ((1, 2), (1, 2, 3)),
            ([1], (1,)),
            (float("nan"), 0.0),
            (io.StringIO, io.BytesIO),
        ],
        ids=repr,
    )
    def test_different(self, result, expected):
        with pytest.raises(AssertionError):
            assert_same(result, expected)
