"""Buffers and the array interface: there in sections, where no copy made through them can show half of a write."""

import hashlib
import inspect
import io
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray
from arrayhost.client.session import round_trips
from tests.conformance.test_dtypes import DTYPES
from tests.support import assert_same, child, run_python

needs_buffers = pytest.mark.skipif(sys.version_info < (3, 12), reason="classes have __buffer__ since Python 3.12")


class Told:
    """Knows of an array what its array interface says, as libraries do that use nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def test_outside_of_a_section_there_is_neither(manager: ArrayManager) -> None:
    for a in (manager.arange(3), manager.arange(3).on_host):
        with pytest.raises(AttributeError, match=r"`with a\.read\(\):`"):
            a.__array_interface__  # asking is the test
        assert not hasattr(a, "__array_struct__")
        with pytest.raises(BufferError if sys.version_info >= (3, 12) else TypeError):
            memoryview(a)


@pytest.mark.parametrize("section", [HostedArray.read, HostedArray.write, lambda a: a.lock])
@pytest.mark.parametrize("part", [lambda a: a, lambda a: a[::-2, 1:].T, lambda a: a.on_host])
def test_the_array_interface_tells_where_the_memory_is(
    manager: ArrayManager, section: Callable[[HostedArray], Any], part: Callable[[HostedArray], HostedArray]
) -> None:
    a = manager.array(np.arange(12.0).reshape(4, 3))
    before = round_trips()
    with section(a):
        shared = np.asarray(Told(part(a)))
    assert round_trips() == before
    expected = part(a).on_host.copy() if part(a).mapped else a.copy()
    assert_same(shared, expected)
    assert np.shares_memory(shared, np.asarray(a))
    assert not shared.flags.writeable
    a += 1
    assert_same(shared, expected + 1)


def test_only_the_thread_that_has_the_section_gets_the_memory(manager: ArrayManager) -> None:
    a = manager.arange(3)
    seen = []
    with a.write():
        thread = threading.Thread(target=lambda: seen.append(hasattr(a, "__array_interface__")))
        thread.start()
        thread.join()
        assert hasattr(a, "__array_interface__")
    assert seen == [False]


@pytest.mark.parametrize("name", DTYPES)
def test_numpy_finds_the_same_in_a_section_as_outside(manager: ArrayManager, name: str) -> None:
    a = manager.array(DTYPES[name])
    for part in (a, a[::-2], a[:0], a[0:1].reshape(())):
        outside = np.asarray(part)
        with a.read():
            inside, copy = np.asarray(part), np.array(part)
        assert_same(inside, outside)
        assert_same(copy, outside)
        assert inside.dtype.isalignedstruct == outside.dtype.isalignedstruct
        assert not inside.flags.writeable
        assert copy.flags.writeable


@pytest.mark.parametrize("name", ["record with gaps", "overlapping record"])
def test_what_the_array_interface_cannot_describe(manager: ArrayManager, name: str) -> None:
    a = manager.array(DTYPES[name])
    with a.read(), pytest.raises(AttributeError, match="cannot describe"):
        a.__array_interface__  # asking is the test


def test_a_picture_is_made_in_a_section(manager: ArrayManager) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), "u1")
    a = manager.array(pixels)
    with a.read():
        assert_same(np.asarray(image.fromarray(a)), pixels)


def test_a_copy_made_in_a_section_shows_one_write(manager: ArrayManager) -> None:
    a = manager.zeros(200_000)
    writer = """
        import pickle, sys, itertools
        a = pickle.loads(bytes.fromhex(sys.argv[1]))
        print("ready", flush=True)
        for i in itertools.count():
            a[...] = i
    """
    with child(writer, pickle.dumps(a).hex()) as process:
        process.expect("ready")
        version = a.version
        for _ in range(200):
            with a.read():
                copy = np.array(a)
            assert copy[0] == copy[-1] == copy.max() == copy.min()
        assert a.version > version
        process.kill()


def test_memory_that_was_told_stays_when_the_proxy_moves_on() -> None:
    result = run_python("""
        import os, signal, tempfile
        import numpy as np
        from arrayhost import ArrayManager

        class Told:
            def __init__(self, array):
                self.array = array
                self.__array_interface__ = array.__array_interface__

        with tempfile.TemporaryDirectory() as folder:
            address = f"{folder}/host"
            first = ArrayManager(address)
            first.start()
            first["x"] = np.ones(1_000_000)
            a = first["x"]
            with a.read():
                shared = np.asarray(Told(a))
                for _ in range(100):
                    a.__array_interface__
            assert len(a._pinned) == 1
            os.kill(first._process.pid, signal.SIGKILL)
            first.join()
            with ArrayManager(address) as second:
                second["x"] = np.zeros(1_000_000)
                a[0] = 5
                print(a[0], a[1], shared.sum())
    """)
    assert result.stdout.split() == ["5.0", "0.0", "1000000.0"]


@pytest.mark.parametrize("values", [np.array([65, 66]), np.array(3), np.array([3]), np.eye(3).T[1:], np.array(["ab"])])
def test_bytes(manager: ArrayManager, values: np.ndarray) -> None:
    a = manager.array(values)
    assert bytes(a) == bytes(a.on_host) == bytes(values)


@needs_buffers
def test_buffers_in_sections(manager: ArrayManager) -> None:
    a = manager.array(np.arange(6.0))
    with a.read():
        view = memoryview(a[::2])
        digest = hashlib.sha256(a).digest()
        with pytest.raises(BufferError, match="writeable memory"):
            a.__buffer__(inspect.BufferFlags.WRITABLE)
    assert view.readonly
    assert view.tolist() == [0, 2, 4]
    assert digest == hashlib.sha256(a.copy()).digest()
    with a.lock, pytest.raises(TypeError, match="read-write"):
        io.BytesIO(bytes(48)).readinto(a)
    with a.write():
        assert memoryview(a).readonly
        io.BytesIO(np.ones(6).tobytes()).readinto(a)
    assert a.tolist() == [1] * 6


GAPS = np.zeros(3, {"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 16})


@needs_buffers
@pytest.mark.parametrize("values", [DTYPES["M8[D]"], GAPS], ids=["dates", "gaps"])
def test_buffers_name_what_they_cannot_describe(manager: ArrayManager, values: np.ndarray) -> None:
    a = manager.array(values)
    with a.read(), pytest.raises(BufferError, match=r"np\.asarray\(a\) gives"):
        memoryview(a)
