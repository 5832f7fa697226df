"""One program, run on a host and on a cluster with nothing but its address changed: the same answers."""

import os

import numpy as np
import pytest

from tests.dask.conftest import FULL
from tests.support import run_python

# Elements: in the long form 400 MB of float64. The environment may say less, for a machine that has less.
N = int(os.environ.get("ARRAYHOST_STORY_N", "50000000" if FULL else "1000000"))

PROGRAM = """
import multiprocessing, sys
import numpy as np
from arrayhost import ArrayManager, HostedArray, locked

class Wrapper:
    def __init__(self, n):
        self.array = np.zeros(n)
        self.lock = multiprocessing.Lock()

    def attribute(self, name):
        return getattr(self.array, name)

    def getdata(self, index):
        return self.array[index]

    def add(self, index, value):
        with self.lock:
            self.array[index] = self.array[index] + value

class Arrays(ArrayManager):
    pass

Arrays.register("shared_array", np.ones)
Arrays.register("wrapper", Wrapper)

def add_up(a, results):
    results.put(float(a.sum()))

def work(part):
    part += 1

def add_often(wrapper):
    for _ in range(20):
        wrapper.add(0, 1.0)

def count(a):
    for _ in range(10):
        with a.write() as x:
            x[0] += 1

def run(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print("children", [process.exitcode for process in processes])

if __name__ == "__main__":
    n = int(sys.argv[2])
    context = multiprocessing.get_context("fork")
    with Arrays(sys.argv[1]) as manager:
        a = manager.shared_array((n,))
        print("printed", a)
        print("hosted", isinstance(a, HostedArray), a.shape, a.dtype, a.ndim, a.size, a.nbytes, a.itemsize, a.strides)
        print("sum", a.sum(), "mean", np.mean(a), "copy", a._getvalue().sum())
        for method in sys.argv[3].split(","):
            there = multiprocessing.get_context(method)
            results = there.SimpleQueue()
            run(there.Process(target=add_up, args=(a, results)))
            print("child", results.get())
        print("attribute", a._callmethod("__getattr__", args=("shape",)))
        a[3:6] = [7, 8, 9]
        print("slice", a[:10], a._callmethod("__getitem__", args=(slice(0, 4),)))
        print("computed", type(a[:3] + 1).__name__, a[:3] + 1, a[4], np.sqrt(a[3:6]))
        a[0] = 7
        a += 1
        a[1:] *= 2
        print("written", a[:6], a.sum(), a.min(), a.max(), a.argmax())
        run(context.Process(target=work, args=(a[:1000],)))
        print("after another process", a[:3], a.sum())
        tally = manager.zeros(1, dtype=np.int64)
        run(*[context.Process(target=count, args=(tally,)) for _ in range(4)])
        print("counted", tally[0], tally.atomic.add(0, 5), tally)
        wrapper = manager.wrapper(n)
        run(*[context.Process(target=add_often, args=(wrapper,)) for _ in range(8)])
        print("wrapper", wrapper.attribute("shape"), wrapper.getdata(slice(0, 3)))
        manager["prices"] = np.linspace(1.0, 2.0, 5)
        print("names", list(manager), manager["prices"], "prices" in manager)
        with locked(tally, manager["prices"]) as (x, y):
            x[0], y[:] = 1, x[0]
        print("locked", tally, manager["prices"])
        print("last", np.sort(a[:5]), np.median(a[:8]), a[[1, 5]], a[:9][a[:9] > 10])
"""


def answers(address: str, n: int, methods: str, timeout: float) -> list[str]:
    return run_python(PROGRAM, address, n, methods, timeout=timeout).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.watchdog(400)
def test_the_same_program_gives_the_same_answers() -> None:
    methods = "fork,spawn,forkserver" if FULL else "fork"
    on_host = answers("", N, methods, 180)
    on_cluster = answers("dask://local?workers=2", N, methods, 300)
    assert len(on_host) == (22 if FULL else 18)
    assert on_cluster == on_host


LARGER = """
import sys
import numpy as np
from arrayhost import ArrayManager

if __name__ == "__main__":
    n = int(sys.argv[2])
    with ArrayManager(sys.argv[1]) as manager:
        a = manager.arange(float(n))  # ones would be one element, repeated
        limit = min(w["memory_limit"] for w in manager.client.scheduler_info()["workers"].values())
        print("larger", a.nbytes > limit)
        print(a.sum() == n * (n - 1) / 2, a[n // 2 : n // 2 + 3])
        before = a[: n // 8].sum()
        a[: n // 8] = 0
        a[-1] = 9
        print(a.sum() == n * (n - 1) / 2 - before - (n - 10), a.max(), a.argmax(), a[-2:])
        b = np.sqrt(a)
        print(type(b).__name__, b.shape, b[-1:], float(b.min()))
        try:
            np.sort(a)
        except MemoryError as error:
            print(type(error).__name__)
"""


@pytest.mark.slow
@pytest.mark.watchdog(400)
@pytest.mark.skipif(not FULL, reason="minutes of spilling: ARRAYHOST_DASK=full")
def test_an_array_larger_than_the_memory_of_one_worker() -> None:
    n = 90_000_000
    out = run_python(LARGER, "dask://local?workers=2&memory=640MiB", n, timeout=350).stdout.splitlines()
    half, last = float(n // 2), float(n - 2)
    assert out == [
        "larger True", f"True {np.array([half, half + 1, half + 2])!r}",
        f"True {last} {n - 2} {np.array([last, 9.0])!r}", f"ClusterArray ({n},) array([3.]) 0.0", "GatherLimitError",
    ]  # fmt: skip
