"""Versions: writers of one element lose nothing, readers see one version, and a writer that was away never wins."""

import operator
import pickle
import signal
from typing import Any

import numpy as np
import numpy.lib.recfunctions as recfunctions
import pytest

import arrayhost
from arrayhost import ArrayManager, HostedArray
from arrayhost.engines.dask import writing
from arrayhost.evaluation.tables import IN_PLACE_OPERATORS, WRITING_FUNCTIONS, WRITING_METHODS
from tests.dask.conftest import FULL, KEPT
from tests.support import Child, assert_same, child, run_python

pytestmark = pytest.mark.census_ignore(KEPT, reason="Dask's client keeps threads and connections")


@pytest.fixture(scope="module")
def manager(cluster: str) -> ArrayManager:
    manager = arrayhost.connect(cluster)
    manager.ones(1).sum()
    return manager


def test_a_section_exports_no_memory(manager: ArrayManager) -> None:
    # What it works on is a copy of its own.
    a = manager.arange(6.0, chunks=4)
    with a.write() as x:
        x[0] = 9
        assert_same(np.from_dlpack(a), np.array([9.0, 1, 2, 3, 4, 5]))
        with pytest.raises(BufferError, match="without a copy"):
            np.from_dlpack(a, copy=False)
        assert not hasattr(a, "__array_interface__")


FOUR_WRITERS = """
import multiprocessing, pickle, sys

def through_a_view(a):
    for _ in range(25):
        a[0:1] += 1

def atomically(a):
    for _ in range(25):
        a.atomic.add(0, 1)

def in_sections(a):
    for _ in range(25):
        with a.write() as x:
            x[0] += 1

def under_the_lock(a):
    for _ in range(25):
        with a.lock:
            a[0] = a[0] + 1

if __name__ == "__main__":
    a, work = pickle.loads(bytes.fromhex(sys.argv[1])), globals()[sys.argv[2]]
    writers = [multiprocessing.get_context("fork").Process(target=work, args=(a,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    print([writer.exitcode for writer in writers])
"""


MASK = np.array([True, False, True, True, False, True])
WRITES = {
    "in place": lambda x: operator.iadd(x, 1),
    "in place, of a view": lambda x: operator.imul(x[::2], 3),
    "out": lambda x: np.add(x, x[::-1], out=x),
    "out, where": lambda x: np.negative(x, out=x, where=MASK),
    "copyto": lambda x: np.copyto(x, x[::-1]),
    "copyto, where": lambda x: np.copyto(x, 7, where=MASK),
    "setitem": lambda x: operator.setitem(x, slice(None), x[::-1]),
    "setitem by a mask": lambda x: operator.setitem(x, MASK, 7),
    "fill": lambda x: x.fill(7),
}


@pytest.mark.parametrize("way", WRITES)
def test_a_write_between_reading_and_writing_is_not_lost(
    manager: ArrayManager, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    array = np.array([5.0, 1, 4, 2, 3, 0])
    a = manager.array(array, chunks=4)
    original, intruded = writing.shown, []

    def shown_and_written_to(*args: Any) -> Any:
        elements = original(*args)
        if not intruded:
            intruded.append(True)
            a[1:3] = 50
        return elements

    monkeypatch.setattr(writing, "shown", shown_and_written_to)
    WRITES[way](a)
    assert intruded
    array[1:3] = 50
    WRITES[way](array)
    assert_same(a.copy(), array)
    assert a.version == 3


@pytest.mark.slow
@pytest.mark.watchdog(180)
@pytest.mark.parametrize("work", ["through_a_view", *(["in_sections", "atomically", "under_the_lock"] if FULL else [])])
def test_four_writers_of_one_element_lose_nothing(manager: ArrayManager, work: str) -> None:
    a = manager.zeros(1000, chunks=300)
    assert run_python(FOUR_WRITERS, dumped(a), work, timeout=150).stdout == "[0, 0, 0, 0]\n"
    assert a[0] == 100
    assert a.sum() == 100
    assert a.version == 101


def dumped(a: HostedArray) -> str:
    return pickle.dumps(a).hex()


WRITER = """
import pickle, sys

if __name__ == "__main__":
    a = pickle.loads(bytes.fromhex(sys.argv[1]))
    for k in range(1, int(sys.argv[2]) + 1):
        a[...] = k
        if k == 1:
            print("begun", flush=True)
    print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.watchdog(180)
def test_no_read_is_torn(manager: ArrayManager) -> None:
    a = manager.zeros((200, 100), chunks=(50, 50))
    n_writes, n_reads = (150, 300) if FULL else (40, 80)
    seen = set()
    with child(WRITER, dumped(a), n_writes, timeout=150) as writer:
        writer.expect("begun")
        for _ in range(n_reads):
            copy = a.copy()
            assert (copy == copy[0, 0]).all()
            seen.add(float(copy[0, 0]))
        writer.expect("done")
    assert len(seen) > 1
    assert a.copy().max() == a[0, 0] == n_writes


# Stops between the computation of the new chunks and their publication, until it is told to go on.
STOPPING = """
import pickle, sys
from arrayhost.engines.dask import commits, link, sections

call = link.ClusterLink.call

def stopping(self, request, **arguments):
    if request != "commit":
        return call(self, request, **arguments)
    print("computed", flush=True)
    input()
    answer = call(self, request, **arguments)
    print("answer", answer["refused"], flush=True)
    return answer

link.ClusterLink.call = stopping
commits.LEASE_SECONDS = sections.LEASE_SECONDS = 1.0

if __name__ == "__main__":
    a = pickle.loads(bytes.fromhex(sys.argv[1]))
    try:
        if sys.argv[2] == "section":
            with a.write() as x:
                x += 10
        else:
            a[:100] += 10
    except Exception as error:
        print("error", type(error).__name__, flush=True)
    else:
        print("done", flush=True)
"""


def stop(process: Child) -> None:
    process.expect("computed")
    process.send_signal(signal.SIGSTOP)


def test_a_writer_that_was_stopped_cannot_commit_what_is_old(manager: ArrayManager) -> None:
    a = manager.zeros(300, chunks=100)
    with child(STOPPING, dumped(a), "write", timeout=60) as writer:
        stop(writer)
        a[:2] = 5  # nobody waits for the stopped one
        writer.send_signal(signal.SIGCONT)
        writer.send()
        writer.expect("answer version")
        writer.expect("computed")  # again, from the newest version
        writer.send()
        writer.expect("answer None")
        writer.expect("done")
    expected = np.zeros(300)
    expected[:2] = 5
    expected[:100] += 10
    assert_same(a.copy(), expected)


def test_a_section_that_was_stopped_is_void(manager: ArrayManager) -> None:
    a = manager.zeros(300, chunks=100)
    with child(STOPPING, dumped(a), "section", timeout=60) as writer:
        stop(writer)
        a[0] = 5  # waits until the lease is over
        writer.send_signal(signal.SIGCONT)
        writer.send()
        writer.expect("answer lock")
        writer.expect("error LeaseLostError")
    assert a.sum() == 5


@pytest.mark.parametrize("kind", ["write", "section"])
def test_a_writer_that_is_killed_before_it_commits_has_changed_nothing(manager: ArrayManager, kind: str) -> None:
    a = manager.ones(300, chunks=100)
    with child(STOPPING, dumped(a), kind, timeout=60) as writer:
        writer.expect("computed")
        writer.kill()
    assert a.sum() == 300
    a[0] = 3
    with a.write(timeout=30) as x:  # its lock has gone with it
        x[1] = 3
    assert a.sum() == 304


def test_the_memory_of_old_versions_is_given_back(manager: ArrayManager) -> None:
    a = manager.zeros(1000, chunks=500)
    first = a.to_dask()
    keys = manager.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    for k in range(20):
        a[...] = k
    assert manager.client.compute(first.sum()).result() == 0  # who reads an old version keeps it
    del first
    held = manager.client.run_on_scheduler(
        lambda dask_scheduler: sum(task.state == "memory" for task in dask_scheduler.tasks.values())
    )
    assert held <= keys + 6


# -- none of what writes may change nothing in silence --------------------------------------------------------------

VALUES = np.arange(24.0).reshape(6, 4)
RECORDS = np.zeros(4, [("x", "f8"), ("y", "i4")])
ARGUMENTS: dict[str, Any] = {
    "numpy:copyto": (5,), "numpy:put": ([0, 3], [9, 8]), "numpy:place": (VALUES > 4, [1, 2]),
    "numpy:putmask": (VALUES > 4, -1), "numpy:fill_diagonal": (7,),
    "numpy:put_along_axis": (np.zeros((6, 1), int), 3, 1),
    "numpy:nan_to_num": (False,), "numpy:median": (None, None, True), "numpy:nanmedian": (None, None, True),
    "numpy:percentile": (40, None, None, True), "numpy:nanpercentile": (40, None, None, True),
    "numpy:quantile": (0.4, None, None, True), "numpy:nanquantile": (0.4, None, None, True),
    "fill": (3,), "sort": (), "partition": (2,), "put": ([1, 2], 5), "resize": ((3, 8),), "setfield": (1.0, "f8"),
    "setflags": (False,), "__setitem__": (0, 4), "__delitem__": (0,), "__setstate__": ((),),
}  # fmt: skip


def test_functions_that_write(manager: ArrayManager) -> None:
    for path in sorted(WRITING_FUNCTIONS):
        print(path)  # shown if it fails
        name = path.partition(":")[2]
        if path.startswith("numpy.lib.recfunctions"):
            start: Any = RECORDS
            values = np.ones(4, RECORDS.dtype)
            arguments = lambda a: (values, a) if name == "recursive_fill_fields" else (a, values)  # noqa: E731, B023  # used in this round only
            function = getattr(recfunctions, name)
        else:
            start = np.where(VALUES == 3, np.nan, VALUES) if "nan" in path else VALUES
            arguments = lambda a: (a, *ARGUMENTS[path])  # noqa: E731, B023  # used in this round only
            function = getattr(np, name)
        a, expected = manager.array(start), start.copy()
        version = a.version
        function(*arguments(expected))
        function(*arguments(a))
        assert_same(a.copy(), expected)
        assert a.version > version


IMPOSSIBLE = ("resize", "setfield", "setflags", "__setstate__", "__delitem__", "__isetitem__", "__idelitem__")


def test_methods_that_write(manager: ArrayManager) -> None:
    for name in sorted(WRITING_METHODS | {"byteswap"}):
        print(name)  # shown if it fails
        start = VALUES[:4].astype(dtype_for(name))
        a, expected = manager.array(start, chunks=(3, 3)), start.copy()
        arguments = ARGUMENTS.get(name, (True,) if name == "byteswap" else (np.eye(4) if "matmul" in name else 2,))
        version = a.version
        if name in IMPOSSIBLE:
            with pytest.raises((arrayhost.UnsupportedError, ValueError, AttributeError)):
                a._callmethod(name, arguments)
            assert_same(a.copy(), expected)
            continue
        a._callmethod(name, arguments)
        getattr(expected, name)(*arguments)
        assert_same(a.copy(), expected)
        assert a.version > version


def test_in_place_operators(manager: ArrayManager) -> None:
    for name in sorted(IN_PLACE_OPERATORS - {"setitem", "delitem"}):
        print(name)  # shown if it fails
        start = VALUES[:4].astype(dtype_for(name))
        a, expected = manager.array(start, chunks=(3, 3)), start.copy()
        other = np.eye(4, dtype=start.dtype) if name == "imatmul" else 2
        function = getattr(operator, name)
        assert function(a, other) is a
        function(expected, other)
        assert_same(a.copy(), expected)


def dtype_for(name: str) -> str:
    return "i8" if name.strip("_") in ("iand", "ior", "ixor", "ilshift", "irshift") else "f8"


def test_what_numpy_would_show_as_a_view_of_another_kind_is_read_only(manager: ArrayManager) -> None:
    a = manager.array(VALUES, chunks=(4, 3))
    for shown in (a.reshape(4, 6), a.ravel(), np.flip(a), np.diagonal(a), np.broadcast_to(a, (2, 6, 4))):
        with pytest.raises(ValueError, match="read-only"):
            shown[0] = 1
    assert_same(a.copy(), VALUES)


def test_read_only_connections(cluster: str) -> None:
    writer = arrayhost.connect(cluster)
    a = writer.put("for readers", VALUES, overwrite=True)
    reader = arrayhost.connect(cluster, mode="r")
    seen = reader["for readers"]
    assert_same(seen.copy(), VALUES)
    assert not seen.flags.writeable
    for change in (
        lambda: seen.__setitem__(0, 1), lambda: seen.fill(0), lambda: reader.ones(3), lambda: seen.atomic.add(0, 1),
        lambda: reader.__delitem__("for readers"), lambda: seen.attrs.update(x=1), lambda: seen.write().__enter__(),
    ):  # fmt: skip
        with pytest.raises(arrayhost.ReadOnlyError):
            change()
    assert_same(a.copy(), VALUES)
    del writer["for readers"]
    reader.client.close()


def test_a_forked_child_goes_on(cluster: str) -> None:
    out = run_python(
        """
        import multiprocessing, sys, arrayhost

        def work(part):
            part += 1

        if __name__ == "__main__":
            a = arrayhost.connect(sys.argv[1]).zeros(100, chunks=30)
            a[0] = 5
            process = multiprocessing.get_context("fork").Process(target=work, args=(a[:50],))
            process.start()
            process.join()
            print(process.exitcode, a.sum())
        """,
        cluster, timeout=60,
    )  # fmt: skip
    assert out.stdout == "0 55.0\n"
