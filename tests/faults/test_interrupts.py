"""Ctrl-C at any point of any call or section: no lock is left held, and no reply for the next call."""

import gc
import os
import pickle
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, TornArrayWarning, connect, locked
from arrayhost.sync.guards import held_here
from tests.faults.harness import Run, Victim, count, nothing_left, report, scaled, shared_words, victims
from tests.support import child, descendants, run_python, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.watchdog(120)]

# Words that the interrupted process and the one that interrupts it share.
ARMED, CHECKED, SWALLOWED = range(3)


class Echo:
    def say(self, value: Any) -> Any:
        return value


class Arrays(ArrayManager):
    pass


Arrays.register("Echo", Echo)


def _doings(manager: Any, a: Any, b: Any, echo: Any, rng: random.Random) -> list[Any]:
    """Everything that sends, waits, locks or maps."""

    def section() -> None:
        with a.write() as x:
            x[0] += 1

    def nested() -> None:
        with a.write() as x, a[2:].write() as y:
            x[0] = y[0]

    def reading() -> None:
        with a.read() as x, b.read() as y:
            x.sum() + y.sum()

    def group() -> None:
        with locked(a, b) as (x, y):
            x[1] = y[1]

    def lock() -> None:
        with a.lock:
            a[3] = 1

    return [
        section,
        nested,
        reading,
        group,
        lock,
        lambda: a.fill(1),
        lambda: a.__setitem__(2, 5),
        lambda: a.__iadd__(1),
        lambda: a.sum(),
        lambda: b.copy(),
        lambda: manager.ones(rng.randrange(1, 500)),
        lambda: manager.run(np.zeros, 50),
        lambda: manager["b"],
        lambda: pickle.loads(pickle.dumps(b)),
        lambda: echo.say(7),
        lambda: echo.say(b),
        lambda: manager.statistics(),
        lambda: a.recover(),
    ]


def be_interrupted(address: str, seed: float, words: np.ndarray, n: int) -> None:
    """Do one thing after another; after each interrupt, see whether anything of it is left."""
    rng = random.Random(seed)
    manager = connect(address)
    a, b, echo = manager["a"], manager["b"], Arrays(address)
    echo.connect()
    echo = echo.Echo()
    doings = _doings(manager, a, b, echo, rng)

    def swallowed(unraisable: Any) -> None:
        # Python itself cannot pass on what is raised in the finalizer of some object.
        if unraisable.exc_type is KeyboardInterrupt:
            words[SWALLOWED] += 1
            raised.append(1)
        else:
            sys.__unraisablehook__(unraisable)

    def go_on() -> None:
        while not raised:
            rng.choice(doings)()

    raised: list[int] = []
    sys.unraisablehook = swallowed
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    before = _descriptors()
    for k in range(1, n + 1):
        try:
            words[ARMED] = k
            go_on()  # a function, since in Python 3.13 no try covers the jump back of the loop in it
        except KeyboardInterrupt:
            pass
        raised.clear()
        assert not held_here(), f"interrupt {k} left a lock held"
        assert echo.say(k) == k, f"interrupt {k} left a reply for the next call"
        assert b[4] == 1.0
        words[CHECKED] = k
    gc.collect()
    left = _descriptors() - before
    assert not left, f"left: {left}"


def _descriptors() -> Counter[str]:
    """Count this process's descriptors by kind; a few lock files stay open for the next lock, and do not count."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # that of the listing itself
        if "arrayhost:locks" not in target:
            found[target.partition("[")[0]] += 1
    return found


def interrupt(run: Run) -> None:
    """Interrupt a client that does everything, at random times."""
    with Arrays(handle_grace=0.2, lock_timeout=20.0) as manager:
        manager["a"], manager["b"] = np.zeros(100), np.ones(1000)
        a, b = manager["a"], manager["b"]
        words = shared_words(3)
        with nothing_left(manager), victims() as alive:
            victim = Victim(be_interrupted, str(manager.address), run.rng.random(), words, run.n)
            alive.append(victim)
            for k in run.rounds():
                _wait_for(words, ARMED, k + 1, victim)
                run.pause(0.0012)
                victim.signal(signal.SIGINT)
                _wait_for(words, CHECKED, k + 1, victim)
                for array in (a, b):
                    # The host may still be carrying out what was given up, but not for long.
                    with array.write(timeout=5.0):
                        pass
            assert victim.wait() == 0
            alive.clear()
    report(
        f"  {run.n:,} interrupts: 0 locks left held, 0 replies left for the next call, 0 descriptors or leases left; "
        f"{int(words[SWALLOWED])} came while an object's finalizer ran, where Python drops them"
    )


def _wait_for(words: np.ndarray, which: int, value: int, victim: Victim) -> None:
    deadline = time.monotonic() + 8.0
    while words[which] < value:
        if time.monotonic() > deadline:
            raise AssertionError(f"process {victim.pid} hangs: its words are {words}")
        time.sleep(20e-6)


def test_any_call_or_section(run: Run) -> None:
    interrupt(scaled(run, count(600, 10_000)))


# -- the end of an interpreter ---------------------------------------------------------------------------------------

HOLDER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with a.write():
    print("inside", flush=True)
    sys.stdin.readline()
"""

WAITING = """
import signal, sys, threading, arrayhost
from arrayhost.memory.control import WAITER
a = arrayhost.connect(sys.argv[1])["a"]

def wait():
    with a.write(timeout=300.0):
        pass

thread = threading.Thread(target=wait, daemon=sys.argv[2] == "daemon")
thread.start()
while not a.guard.words[a.guard.base + WAITER]:
    pass
print("waiting", flush=True)
if sys.argv[2] != "daemon":
    signal.pause()
"""


@pytest.mark.parametrize("kind", ["daemon", "ctrl-c"])
def test_a_thread_that_waits_for_a_lock_does_not_hang_the_interpreter(kind: str) -> None:
    with ArrayManager() as manager:
        manager["a"] = np.zeros(3)
        with child(HOLDER, manager.address) as holder:
            holder.expect("inside")
            with child(WAITING, manager.address, kind) as waiting:
                waiting.expect("waiting")
                if kind == "ctrl-c":
                    waiting.send_signal(signal.SIGINT)
                assert waiting.wait(30.0) == (0 if kind == "daemon" else -signal.SIGINT)
                assert "Exception ignored" not in waiting.stderr
            holder.send()


def test_a_daemon_thread_in_mid_write_at_the_end_leaves_a_tear_that_is_told() -> None:
    with ArrayManager() as manager:
        manager["a"] = np.zeros(3)
        run_python(
            """
            import sys, threading, arrayhost
            a = arrayhost.connect(sys.argv[1])["a"]
            inside, never = threading.Event(), threading.Event()

            def write():
                with a.write() as x:
                    x[0] = 1
                    inside.set()
                    never.wait()

            threading.Thread(target=write, daemon=True).start()
            inside.wait()
            """,
            manager.address,
        )
        a = manager["a"]
        with pytest.warns(TornArrayWarning), a.write(timeout=5.0):
            pass
        a.recover()


ENDING = """
import sys, threading, numpy as np
from arrayhost import ArrayManager, connect

def main(how):
    manager = ArrayManager()
    manager.start()
    a = manager.ones(1_000_000)
    objects = [manager.array([k]) for k in range(20)]
    ring = [a, objects, a[3:5]]
    ring.append(ring)
    section = a.write()
    x = section.__enter__()
    thread = threading.Thread(target=lambda: connect(manager.address).ones(3).sum())
    thread.start()
    thread.join()
    globals()["kept"] = (manager, ring, section, x)
    if how == "error":
        1 / 0
    if how == "exit":
        sys.exit(3)

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize(("how", "status"), [("end", 0), ("error", 1), ("exit", 3)])
def test_an_interpreter_that_ends_prints_nothing_of_its_own(how: str, status: int) -> None:
    done = run_python(ENDING, how, check=False)
    assert done.returncode == status, done.stderr
    assert "ignored" not in done.stderr
    assert ("ZeroDivisionError" in done.stderr) == (how == "error")
    assert how == "error" or not done.stderr


def test_start_that_is_interrupted_leaves_no_host() -> None:
    source = """
        import signal, sys, traceback
        from arrayhost import ArrayManager
        if __name__ == "__main__":
            # Python drops what is raised in the functions that other modules want called around a fork.
            lost = []
            sys.unraisablehook = lost.append
            print("ready", flush=True)
            try:
                while not lost:
                    manager = ArrayManager()
                    manager.start()
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                    manager.shutdown()
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            except KeyboardInterrupt as error:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                if "start" not in (frame.name for frame in traceback.extract_tb(error.__traceback__)):
                    manager.shutdown()  # it came after start() had returned
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("interrupted", flush=True)
            sys.stdin.readline()
    """
    rng = random.Random()
    for _ in range(count(4, 50)):
        with child(source) as starter:
            starter.expect("ready")
            time.sleep(rng.random() * 0.1)
            starter.send_signal(signal.SIGINT)
            starter.expect("interrupted")
            wait_until(lambda: not descendants(starter.pid), what="the end of the host")


def test_ctrl_c_while_the_host_is_forked_leaves_no_host() -> None:
    source = """
        import os, signal, sys
        from arrayhost import ArrayManager

        real = os.fork

        def interrupted():
            # As a signal that comes while the kernel forks: Python handles it before anybody knows the child's number.
            pid = real()
            if pid:
                os.kill(os.getpid(), signal.SIGINT)
            return pid

        if __name__ == "__main__":
            os.fork = interrupted
            manager = ArrayManager(ctx=__import__("multiprocessing").get_context("fork"))
            try:
                manager.start()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
            sys.stdin.readline()
    """
    with child(source) as starter:
        starter.expect("interrupted")
        starter.expect("True")
        assert not descendants(starter.pid)
