"""Rule R2: no read ever shows a mix of two writes, and no reader ever holds up a writer."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arrayhost import ArrayManager
from arrayhost.client.session import round_trips
from tests.support import Child, child, wait_until

N = 1_000_000

# Each worker says when it is ready, waits for a line, and does as many rounds as it was told to.
HOST_WRITER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("ready", flush=True)
sys.stdin.readline()
for k in range(int(sys.argv[2])):
    a.fill(k)
print("done", flush=True)
"""

SECTION_WRITER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("ready", flush=True)
sys.stdin.readline()
for k in range(int(sys.argv[2])):
    with a.write() as x:
        x.fill(-k)
print("done", flush=True)
"""

READER = """
import sys, numpy as np, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
copies = [a.copy, lambda: np.array(a), a._getvalue, lambda: a[::2].copy(), lambda: a + 0]
print("ready", flush=True)
sys.stdin.readline()
values = set()
for k in range(int(sys.argv[2])):
    copy = copies[k % len(copies)]()
    assert copy.min() == copy.max(), (k, copy.min(), copy.max())
    values.add(float(copy.flat[0]))
print("done", len(values), flush=True)
"""

STOPPED_READER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("ready", flush=True)
while True:
    a.copy()
"""

# One value after the other, every fourth one by the host.
COUNTING_WRITER = """
import itertools, sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("ready", flush=True)
for k in itertools.count():
    if k % 4:
        with a.write() as x:
            x.fill(k)
    else:
        a.fill(k)
"""

# What serves as an index, a count or a shape is itself rewritten all the time, to valid and to wild values.
REWRITER = """
import sys, numpy as np, arrayhost
manager = arrayhost.connect(sys.argv[1])
index = manager["index"]
print("ready", flush=True)
sys.stdin.readline()
for k in range(int(sys.argv[2])):
    with index.write() as x:
        x[...] = k % 5
    with index.write() as x:
        x[...] = 2**62
        x[::2] = -(2**62)
print("done", flush=True)
"""

# Indices, and ten times as much for each, in one array and in two; all of them of one moment.
PAIRING = """
import itertools, sys, numpy as np, arrayhost
manager = arrayhost.connect(sys.argv[1])
both, index, values = (manager[name] for name in ("both", "index", "values"))
print("ready", flush=True)
for k in itertools.count():
    with arrayhost.locked(both, index, values) as (x, i, v):
        i[...] = (np.arange(i.size) + k) % 997
        v[...] = 10 * i
        x[: i.size], x[i.size :] = i, v
"""


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as manager:
        manager["a"] = np.zeros(N)
        yield manager


@pytest.mark.slow
@pytest.mark.watchdog(100)
@pytest.mark.parametrize("n_readers", [2, 4])
def test_no_copy_shows_two_writes(manager: ArrayManager, n_readers: int) -> None:
    with contextlib.ExitStack() as stack:

        def start(source: str, count: int) -> Child:
            helper = stack.enter_context(child(source, manager.address, count, timeout=60))
            helper.expect("ready")
            return helper

        writers = [start(HOST_WRITER, 600), start(SECTION_WRITER, 600)]
        readers = [start(READER, 60) for _ in range(n_readers)]
        for helper in writers + readers:
            helper.send()
        seen = [int(helper.expect("done")) for helper in readers]
        for helper in writers:
            helper.expect("done")
    # Else nothing was written between the copies, and this showed nothing.
    assert max(seen) > 2


def test_reductions_and_operators_show_no_two_writes(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(SECTION_WRITER, manager.address, 200) as writer:
        writer.expect("ready")
        writer.send()
        for _ in range(60):
            low, high = np.partition(a, [0, N - 1])[[0, N - 1]]
            assert low == high
            assert (a - a == 0).all()
        writer.expect("done")


def interpolated(a: Any) -> Any:
    """An array that shows one value throughout is interpolated at its one known place, and nowhere beside it."""
    return np.interp(a[:-2], a[-2:-1], a[-1:], left=-1, right=-1) >= 0


# Reads of several views of one array whose elements are all the same: each returns truths.
READS_OF_VIEWS: dict[str, Callable[[Any], Any]] = {
    "disjoint, operator": lambda a: a[: a.size // 2] - a[a.size // 2 :] == 0,
    "overlapping, operator": lambda a: a[:-1] == a[1:],
    "interleaved, ufunc": lambda a: np.equal(a[::2], a[1::2]),
    "distant, operator": lambda a: a[:8] == a[-8:],
    "concatenate": lambda a: np.ptp(np.concatenate([a[:8], a[8:]])) == 0,
    "convolve": lambda a: np.sqrt(np.convolve(a[:-1], a[-1:])) % 1 == 0,  # no k * (k + 1) is a square
    "interp": interpolated,
    "live and still": lambda a: a.sum(initial=a[:1].reshape(())) % (a.size + 1) == 0,
    "in the caller": lambda a: np.apply_along_axis(np.equal, 0, a[:-1], a[-1:]),
}


def mixed_reads(a: Any, n: int) -> npt.NDArray[Any]:
    """Evaluate each of the reads `n` times; return how many of them showed two writes."""
    version = a.version
    counts = [sum(not np.all(read(a)) for _ in range(n)) for read in READS_OF_VIEWS.values()]
    assert a.version > version, "nothing was written meanwhile"
    return np.array(counts)


def gathered_in_a_section(target: Any, a: Any, n: int) -> int:
    """Gather views of `a` in a target that is locked, `n` times; return how many times they showed two writes."""
    n_mixed = 0
    with target.write() as x:
        for _ in range(n):
            np.concatenate([a[k::20] for k in range(20)], out=target)
            n_mixed += int(np.ptp(x) != 0)
    return n_mixed


@pytest.mark.slow
@pytest.mark.watchdog(100)
@pytest.mark.parametrize(("size", "n"), [(200, 200), (100_000, 50)])
def test_several_views_of_one_array_are_read_as_of_one_moment(size: int, n: int) -> None:
    with ArrayManager() as manager:
        manager["a"] = np.zeros(size)
        a = manager["a"]
        with child(COUNTING_WRITER, manager.address) as writer:
            writer.expect("ready")
            mixed = {
                "mapped": mixed_reads(a, n).tolist(),
                "on the host": mixed_reads(a.on_host, n).tolist(),
                "in a function of the host": manager.run(mixed_reads, a, n).tolist(),
            }
            mixed["as operands of a write in a section"] = [gathered_in_a_section(manager.zeros(size), a, n)]
            writer.kill()
    assert not any(map(any, mixed.values())), f"{n} reads each of {list(READS_OF_VIEWS)}: mixed were {mixed}"


def test_views_of_one_array_travel_in_one_round_trip(manager: ArrayManager) -> None:
    a = manager["a"].on_host
    before = round_trips()
    assert np.apply_along_axis(np.equal, 0, a[:8], a[-8:]).all()
    assert round_trips() == before + 1


def test_a_stopped_reader_stops_no_writer(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(STOPPED_READER, manager.address) as reader:
        reader.expect("ready")
        for k in range(1, 6):
            reader.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            a.fill(k)
            with a.write(timeout=5) as x:
                x += 1
            assert time.monotonic() - started < 2
            assert a[0] == k + 1
            reader.send_signal(signal.SIGCONT)
            time.sleep(0.02)
        reader.kill()


def test_operands_rewritten_meanwhile_crash_nobody(manager: ArrayManager) -> None:
    manager["values"], manager["target"] = np.arange(1000.0), np.zeros(1000)
    manager["index"] = np.zeros(100, dtype=np.int64)
    hosted, target, index = manager["values"], manager["target"], manager["index"]
    host_pid = manager.statistics().pid
    refusals = (IndexError, ValueError, MemoryError, OverflowError)
    # Every index in `index` is the same, or else it is the wild pair: these must show one value, or be refused.
    gathering: tuple[Callable[[], Any], ...] = (
        lambda: hosted[index],
        lambda: hosted.take(index),
        lambda: np.take(hosted, index),
        lambda: np.choose(index, [hosted[k] for k in range(5)]),
    )
    others: tuple[Callable[[], Any], ...] = (
        lambda: target.__setitem__(index, 1.0),
        lambda: target.put(index, 1.0),
        lambda: np.repeat(hosted[:100], index),
        lambda: hosted[:100].repeat(index),
        lambda: np.bincount(index),
        lambda: np.unravel_index(index, (10, 100)),
    )
    n_done = n_refused = 0
    with child(REWRITER, manager.address, 10_000) as rewriter:
        rewriter.expect("ready")
        rewriter.send()
        for _ in range(100):
            for action in gathering + others:
                try:
                    result = action()
                except refusals:
                    n_refused += 1
                    continue
                n_done += 1
                if action in gathering:
                    assert np.unique(result).size == 1
        rewriter.expect("done")
    assert n_done
    assert n_refused
    assert manager.statistics().pid == host_pid
    assert target[:5].any()
    # Only the indices 0 to 4 were ever valid for all of it.
    assert not target[5:].any()


def test_an_index_and_the_values_for_it_are_of_one_moment(manager: ArrayManager) -> None:
    half = 500
    manager["both"], manager["index"] = np.zeros(2 * half, np.int64), np.zeros(half, np.int64)
    manager["values"] = np.zeros(half)
    both, index, values = (manager[name] for name in ("both", "index", "values"))
    floats = manager.zeros(997)
    writes: tuple[Callable[[], Any], ...] = (
        lambda: floats.__setitem__(both[:half], both[half:]),
        lambda: floats.__setitem__(index, values),
        lambda: np.put(floats, both[:half], both[half:]),
        lambda: np.put(floats, index, values),
        lambda: floats.atomic.exchange(both[:half], both[half:]),
        lambda: floats.atomic.exchange(index, values),
        lambda: floats.__setitem__((index,), values.view("i8").view(float)),
    )
    version = index.version
    with child(PAIRING, manager.address) as writer:
        writer.expect("ready")
        for _ in range(30):
            for write in writes:
                write()
                stored = floats.copy()
                wrong = (stored != 0) & (stored != 10.0 * np.arange(997))
                assert not wrong.any(), stored[wrong]
        wait_until(lambda: index.version > version + 20)
        writer.kill()


def test_a_scalar_read_makes_no_round_trip(manager: ArrayManager) -> None:
    a = manager["a"]
    a[5] = 3.5
    before = round_trips()
    assert a[5] == 3.5
    assert a[-1] == 0
    assert a[np.int64(5)] == 3.5
    assert a[2:8][3] == 3.5
    assert a.sum() == a.max() == 3.5
    assert a.shape == (N,)
    assert a.version >= 0
    assert len(a) == N
    with a.read() as x:
        assert x[5] == 3.5
    with a.write() as x:
        x[5] = 4
        a[6] = 1
        assert a[5] == 4
    assert round_trips() == before
    a[5] = 1
    assert round_trips() == before + 1
