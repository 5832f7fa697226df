"""``connect(..., mode="r")``: reads as ever, and nothing that would change anything, here or in the host."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import arrayhost
from arrayhost import ArrayHostError, ArrayManager, HostedArray, ReadOnlyError, TornArrayError
from arrayhost.client import registry
from arrayhost.engines.host import HostEngine
from arrayhost.evaluation.operations import OPERATOR, Operation
from arrayhost.wire.frames import Kind
from tests.support import assert_same, child


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, n: int) -> int:
        self.count += n
        return self.count


class Arrays(ArrayManager):
    pass


Arrays.register("Counter", Counter)
VALUES = np.linspace(0.0, 1.0, 50_000).reshape(100, 500)


@pytest.fixture
def manager() -> Iterator[Arrays]:
    with Arrays() as running:
        running["a"] = VALUES
        yield running


@pytest.fixture
def reader(manager: Arrays) -> ArrayManager:
    return arrayhost.connect(str(manager.address), mode="r")


def test_reads_are_those_of_any_proxy(manager: Arrays, reader: ArrayManager) -> None:
    a = reader["a"]
    assert_same(a.sum(axis=0), VALUES.sum(axis=0))
    assert_same(a[3, 4], VALUES[3, 4])
    assert_same(a[VALUES > 0.5], VALUES[VALUES > 0.5])
    assert_same(a[:, ::-3].copy(), VALUES[:, ::-3].copy())
    assert_same(a.on_host.mean(), VALUES.mean())
    with a.read() as x:
        assert_same(np.array(x), VALUES)
    manager["a"][0, 0] = 7
    assert a[0, 0] == 7
    assert list(reader) == ["a"]
    assert reader.statistics().n_arrays == 1


CHANGES: dict[str, Callable[[HostedArray], object]] = {
    "item": lambda a: a.__setitem__(0, 1),
    "slice": lambda a: a[2:4].__setitem__(..., 1),
    "in place": lambda a: a.__iadd__(1),
    "method": lambda a: a.sort(),
    "fill": lambda a: a.fill(0),
    "out": lambda a: np.add(1, 1, out=a),
    "at": lambda a: np.add.at(a, 0, 1),
    "copyto": lambda a: np.copyto(a, 1),
    "flat": lambda a: setattr(a, "flat", 0),
    "on_host": lambda a: a.on_host.fill(0),
    "section": lambda a: a.write().__enter__(),
    "lock": lambda a: a.lock.acquire(),
    "group": lambda a: arrayhost.locked(a).__enter__(),
    "recover": lambda a: a.recover(),
    "recover on_host": lambda a: a.on_host.recover(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_refused_before_anything_is_sent(
    manager: Arrays, reader: ArrayManager, change: Callable[[HostedArray], object]
) -> None:
    a = reader["a"]
    before = arrayhost.client.session.round_trips()
    with pytest.raises(ReadOnlyError, match=r"mode=.r.") as caught:
        change(a)
    assert isinstance(caught.value, ValueError)  # what NumPy raises
    assert arrayhost.client.session.round_trips() == before
    assert_same(manager["a"].copy(), VALUES)


def test_flags_are_those_of_a_read_only_ndarray(reader: ArrayManager) -> None:
    a = reader["a"]
    assert not a.flags.writeable
    assert not a[2:5].flags.writeable
    assert not a.T.flags.writeable
    view = np.asarray(a)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        view.flags.writeable = True


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.ones(3),
        lambda m: m.run(np.ones, 3),
        lambda m: m.__setitem__("b", VALUES),
        lambda m: m.__delitem__("a"),
        lambda m: m.stop_host(),
    ],
    ids=["create", "run", "name", "unname", "shutdown"],
)
def test_a_manager_refuses_as_well(
    manager: Arrays, reader: ArrayManager, change: Callable[[ArrayManager], object]
) -> None:
    with pytest.raises(ReadOnlyError):
        change(reader)
    assert list(manager) == ["a"]
    assert manager.statistics().n_arrays == 1


@pytest.fixture
def unguarded(reader: ArrayManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArrayManager]:
    """A read-only session whose own checks are off, as those of another implementation might be."""
    assert isinstance(reader._engine, HostEngine)
    mapped = reader["a"]
    monkeypatch.setattr(reader._engine.session, "read_only", False)
    yield reader
    del mapped


def test_the_host_itself_refuses(manager: Arrays, unguarded: ArrayManager) -> None:
    a = unguarded["a"]
    counter = pickle.loads(pickle.dumps(manager.Counter()))
    assert isinstance(unguarded._engine, HostEngine)
    session = unguarded._engine.session
    requests: list[Callable[[], object]] = [
        lambda: a.__setitem__(0, 1),
        lambda: a.fill(0),
        lambda: np.add(1, 1, out=a),
        lambda: session.evaluate(Operation(OPERATOR, "iadd"), [a, 1], {}),
        lambda: a.on_host.recover(),
        lambda: unguarded.ones(3),
        lambda: unguarded.run(np.ones, 3),
        lambda: unguarded.__setitem__("b", VALUES),
        lambda: unguarded.__delitem__("a"),
        lambda: session.call(counter._arrayhost_handle, "add", [1], {}),
        lambda: session.call(counter._arrayhost_handle, "__setattr__", ["count", 5], {}),
        lambda: session.request(Kind.SHUTDOWN, None),
    ]
    for request in requests:
        with pytest.raises(ReadOnlyError):
            request()
    assert session.call(counter._arrayhost_handle, "__getattribute__", ["count"], {}) == 0
    assert_same(manager["a"].copy(), VALUES)


def test_descriptors_and_mappings_come_without_the_right_to_write(manager: Arrays) -> None:
    with child(
        """
        import os, sys, arrayhost
        reader = arrayhost.connect(sys.argv[1], mode="r")
        a = reader["a"]
        with a.read():
            fds = [f"{os.readlink(f'/proc/self/fd/{n}')}:{open(f'/proc/self/fdinfo/{n}').read().split()[3]}"
                   for n in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{n}")]
        print([one for one in fds if "memfd:arrayhost" in one])
        print([line.split()[1] for line in open("/proc/self/maps") if "memfd:arrayhost" in line])
        """,
        str(manager.address),
    ) as helper:
        descriptors = helper.read_line()
        permissions = helper.read_line()
    flags = [int(one.rpartition(":")[2].strip("'"), 8) for one in descriptors.strip("[]").split(", ")]
    assert len(flags) >= 16
    assert {flag & os.O_ACCMODE for flag in flags} == {os.O_RDONLY}
    assert "w" not in permissions
    assert "r--s" in permissions


def test_a_pickled_proxy_is_read_only_where_it_arrives(manager: Arrays, reader: ArrayManager) -> None:
    data = pickle.dumps(reader["a"])
    with child(
        """
        import pickle, sys
        from arrayhost import ReadOnlyError
        a = pickle.loads(bytes.fromhex(sys.argv[1]))
        print(float(a.sum()), a.flags.writeable)
        try:
            a[0] = 1
        except ReadOnlyError:
            print("refused")
        """,
        data.hex(),
    ) as helper:
        assert helper.read_line() == f"{VALUES.sum()} False"
        assert helper.read_line() == "refused"


def test_both_modes_in_one_process(manager: Arrays, reader: ArrayManager) -> None:
    writing, reading = manager["a"], reader["a"]
    writing += reading  # an operand is an operand
    assert_same(reading.copy(), VALUES + VALUES)
    assert pickle.loads(pickle.dumps(writing)).flags.writeable
    assert not pickle.loads(pickle.dumps(reading)).flags.writeable
    assert {session.mode for session in registry.by_address.values()} >= {"r", "r+"}


def test_a_dead_writer_is_told_to_who_cannot_mark_it(manager: Arrays, reader: ArrayManager) -> None:
    a = reader["a"]
    with child(
        """
        import sys, arrayhost
        with arrayhost.connect(sys.argv[1])["a"].write() as x:
            x[:50] = 5
            print("inside", flush=True)
            sys.stdin.readline()
        """,
        str(manager.address),
    ) as writer:
        writer.expect("inside")
        pid = writer.pid
        writer.kill(signal.SIGKILL)
    with pytest.raises(TornArrayError) as caught, a.read():
        pass
    assert caught.value.pid == pid
    with pytest.raises(TornArrayError):
        a.sum()
    manager["a"].recover()
    assert a[0, 0] == 5


def test_no_read_is_torn_by_sections(manager: Arrays, reader: ArrayManager) -> None:
    manager["b"] = np.zeros(2000)
    b = reader["b"]
    with child(
        """
        import sys, arrayhost
        b = arrayhost.connect(sys.argv[1])["b"]
        print("ready", flush=True)
        for i in range(1, 3000):
            with b.write() as x:
                x[:1000] = i
                x[1000:] = i
        """,
        str(manager.address),
    ) as writer:
        writer.expect("ready")
        seen = set()
        while b[0] < 2999:
            values = b.copy()
            assert (values == values[0]).all()
            with b.read(timeout=30) as x:
                assert (x == x[0]).all()
                seen.add(float(x[0]))
    assert len(seen) > 1


def test_changes_are_waited_for_without_leaving_word(manager: Arrays, reader: ArrayManager) -> None:
    a = reader["a"]
    before = a.version
    assert a.wait_changed(before, timeout=0.02) == before
    manager["a"][0, 0] = 3
    assert a.wait_changed(before, timeout=10) > before


def test_a_mode_is_one_of_two(manager: Arrays) -> None:
    with pytest.raises(ValueError, match="'r'"):
        arrayhost.connect(str(manager.address), mode="w")


def test_the_error_is_numpys_and_ours() -> None:
    error = pickle.loads(pickle.dumps(ReadOnlyError()))
    assert str(error).startswith("assignment destination is read-only")
    assert isinstance(error, ArrayHostError)
