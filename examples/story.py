"""The program of the README's first screen, a bit longer and with its answers: python examples/story.py"""

import tempfile
from multiprocessing import Process
from pathlib import Path

import numpy as np

import arrayhost
from arrayhost import ArrayManager


class Counter:
    """An ordinary class. Registered, its instances live in the host, and every process calls the same one."""

    def __init__(self):
        self.count = 0

    def add(self, n):
        self.count += n
        return self.count


class Arrays(ArrayManager):  # a drop-in multiprocessing.managers.BaseManager
    pass


Arrays.register("shared_array", np.ones)  # any callable: its result is hosted
Arrays.register("Counter", Counter, serialize=True)  # any class; serialize=True: one call at a time


def work(part, counter):
    """Runs in another process. What it gets are proxies of a few hundred bytes, on the same memory."""
    part += 1  # one atomic write, seen by everyone
    counter.add(part.size)


def add_many(array):
    """Runs in several processes at once."""
    for _ in range(10_000):
        with array.write() as x:  # exclusive: nobody's addition is lost, and a killed holder stops nobody
            x[0] += 1


def run(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main():
    with Arrays() as manager:
        # The array's own memory is mapped here: reading it costs what NumPy costs.
        a = manager.shared_array((50_000_000,))
        print(a)
        print("shape", a.shape, "first", a[:3], "sum", a.sum(), "mean", np.mean(a))
        print("a + 1 is an ordinary array:", type(a + 1))

        a[0] = 7  # in the host, atomic
        with a.write() as x:  # exclusive, in place: x is an ndarray of the memory itself
            x[1:] *= 2
        print("after writing:", a[:3])

        # A slice is a hosted view: another process changes it, and the array has changed.
        counter = manager.Counter()
        run(Process(target=work, args=(a[:1000], counter)))
        print("after another process:", a[:3], "counted", counter.count)

        tally = manager.zeros(1, dtype=np.int64)
        run(*[Process(target=add_many, args=(tally,)) for _ in range(4)])
        print("4 processes added", tally[0])

        # Arrays can have names, and any process of this user can ask for them.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prices.npy"
            np.save(file, np.linspace(1.0, 2.0, 5))
            manager["prices"] = np.load(file)
        print("names:", list(manager))
        elsewhere = arrayhost.connect(manager.address)  # as an unrelated process would
        print("prices:", elsewhere["prices"][:])

        print("private copy:", a._getvalue()[:3], "as BaseManager's proxies give it")
        print("by name:", a._callmethod("__getitem__", args=(slice(0, 3),)))


if __name__ == "__main__":  # so that spawn and forkserver, which import this file anew, work as well
    main()
