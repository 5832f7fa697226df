"""ArrayManager does what BaseManager does in a user's program, and what it adds to that."""

import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import ProcessError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

import arrayhost
from arrayhost import ArrayManager, HostedArray, HostedObject, HostGoneError, NoHostError
from arrayhost.managers import BaseManager
from tests.support import assert_same, child, is_running, run_python, wait_until

METHODS = ["fork", "spawn", "forkserver"]
_started_with: list[Any] = []


class OwnError(Exception):
    pass


class Model:
    kind = "model"

    def __init__(self, n: int) -> None:
        self.n = n
        self.weights = arrayhost.ones(n)
        self._secret = 1

    def get_weights(self) -> Any:
        return self.weights

    def both(self) -> dict[str, Any]:
        return {"weights": self.weights, "n": self.n}

    def double(self) -> None:
        self.weights *= 2

    def fail(self, how: str) -> None:
        if how == "own":
            raise OwnError("mine", 3)
        raise KeyError("gone")

    def child(self) -> Any:
        return Counter()

    def __len__(self) -> int:
        return self.n


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def slow_add(self) -> int:
        count = self.count
        time.sleep(0.01)
        self.count = count + 1
        return self.count

    def hidden(self) -> int:
        return -1


def initialize(*args: Any) -> None:
    _started_with.extend(args)


def started_with() -> np.ndarray:
    return np.array(_started_with)


def scaled(a: Any, factor: float) -> Any:
    return np.asarray(a) * factor


class Things(BaseManager):
    pass


Things.register("Model", Model)
Things.register("Counter", Counter, exposed=["slow_add"])
Things.register("Serial", Counter, serialize=True)
Things.register("Parent", Model, method_to_typeid={"child": "Child"})
Things.register("Child", exposed=["slow_add"], create_method=False)  # no callable: the method's result itself
Things.register("Queue", queue.Queue)
Things.register("Event", threading.Event)
Things.register("started_with", started_with)


@pytest.fixture(scope="module")
def manager() -> Iterator[Things]:
    with Things() as manager:
        manager.ones(1).sum()  # the connection is made now
        yield manager


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ah-") as folder:
        yield Path(folder) / "s"


def test_life() -> None:
    manager = Things()
    assert manager.address is None
    with pytest.raises(ProcessError):
        manager.ones(3)
    with pytest.raises(ProcessError):
        manager.shutdown()
    manager.start()
    assert manager.address.startswith("unix:@arrayhost-")
    with pytest.raises(ProcessError, match="before"):
        manager.start()
    a = manager.ones(3)
    assert a.sum() == 3
    pid = manager.statistics().pid
    assert pid != os.getpid()
    manager.shutdown()
    manager.shutdown()
    manager.join(timeout=5)
    assert not Path(f"/proc/{pid}").exists()
    assert float(a[0]) == 1
    with pytest.raises(HostGoneError):
        manager.ones(3)


@pytest.mark.parametrize("method", METHODS)
def test_initializer_runs_in_the_host(method: str) -> None:
    manager = Things(ctx=multiprocessing.get_context(method))
    manager.start(initialize, (3, 4))
    with manager:
        assert_same(np.array(manager.started_with()), np.array([3, 4]))
    assert _started_with == []


def test_initializer_must_be_callable() -> None:
    with pytest.raises(TypeError, match="initializer"):
        Things().start(initializer=3)


def test_address_and_connect(socket_path: Path) -> None:
    with Things(address=str(socket_path)) as manager:
        assert manager.address == f"unix:{socket_path}"
        manager["prices"] = np.arange(5)
        other = Things(address=manager.address)
        other.connect()
        other["prices"][0] = 9
        assert int(manager["prices"][0]) == 9
        assert other.Model(3).n == 3
        with arrayhost.connect(manager.address) as third:
            assert list(third) == ["prices"]
        assert manager.statistics().pid == other.statistics().pid
    assert not socket_path.exists()


def test_connect_without_a_host(socket_path: Path) -> None:
    with pytest.raises(HostGoneError):
        Things(address=str(socket_path)).connect()
    with pytest.raises(ValueError, match="address"):
        Things().connect()


def test_get_server_in_another_process(socket_path: Path) -> None:
    source = """
        import sys
        import numpy as np
        from arrayhost.managers import BaseManager

        class Remote(BaseManager):
            pass

        Remote.register("numbers", np.arange)
        server = Remote(address=sys.argv[1], authkey=b"key").get_server()
        print("serving", flush=True)
        server.serve_forever()
        """

    client = """
        import sys
        import numpy as np
        from arrayhost.managers import BaseManager

        class Remote(BaseManager):
            pass

        Remote.register("numbers")
        remote = Remote(address=sys.argv[1], authkey=b"key")
        remote.connect()
        a = remote.numbers(5)
        a[0] = 9
        print(remote.statistics().pid, np.array(a).tolist())
        """
    with child(source, socket_path) as helper:
        helper.expect("serving")
        assert run_python(client, socket_path).stdout == f"{helper.pid} [9, 1, 2, 3, 4]\n"
        helper.kill()


SERVER = """
    import os, signal, sys, threading
    from arrayhost.managers import BaseManager

    server = BaseManager(address=sys.argv[1]).get_server()
    if sys.argv[2] == "own handler":
        signal.signal(signal.SIGTERM, lambda number, frame: (print("handled", flush=True), server.stop()))
    if sys.argv[2] == "thread":
        main = threading.Thread(target=server.serve_forever)
        main.start()
    print("serving", flush=True)
    if sys.argv[2] == "thread":
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        server.stop()
        main.join()
    else:
        server.serve_forever()
    print("after", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
    """


@pytest.mark.parametrize(("how", "status"), [("plain", -signal.SIGTERM), ("own handler", 0), ("thread", 0)])
def test_sigterm_leaves_no_socket_and_ends_the_process_as_ever(socket_path: Path, how: str, status: int) -> None:
    with child(SERVER, socket_path, how) as server:
        server.expect("serving")
        if how != "thread":
            run_python("import arrayhost, sys; len(arrayhost.connect(sys.argv[1]))", socket_path)  # it serves
            server.send_signal(signal.SIGTERM)
        if how == "own handler":
            server.expect("handled")
        if how != "plain":
            server.expect(f"after {how == 'thread'}")
        assert server.wait() == status
    assert not socket_path.exists()


class Sleeper:
    def start(self) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writer, b".")
            time.sleep(60)
            os._exit(0)
        # Python forgets signals that come before a child is set up.
        assert os.read(reader, 1) == b"."
        os.close(reader)
        os.close(writer)
        return pid


def caught_signals(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return int(line.split()[1], 16)


def test_sigterm_ends_what_hosted_code_has_forked(socket_path: Path) -> None:
    source = """
        import sys
        from tests.process.test_manager import Sleeper
        from arrayhost.managers import BaseManager

        BaseManager.register("Sleeper", Sleeper)
        server = BaseManager(address=sys.argv[1]).get_server()
        print("serving", flush=True)
        server.serve_forever()
        """

    class Sleepers(BaseManager):
        pass

    Sleepers.register("Sleeper")
    with child(source, socket_path, env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}) as server:
        server.expect("serving")
        manager = Sleepers(address=str(socket_path))
        manager.connect()
        pid = manager.Sleeper().start()
        assert not caught_signals(pid) >> (signal.SIGTERM - 1) & 1  # at once: Python 3.13 may not call a handler there
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid), what="the end of the process that was forked")
        assert len(manager) == 0
        server.kill(signal.SIGTERM)
        manager._engine.session.close()


def test_a_handler_that_calls_a_hosts_ends_a_forked_child() -> None:
    run_python("""
        import os, signal
        from arrayhost import serving

        seen = []
        with serving._handled(seen.append, signal.SIGTERM):
            ours = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
            pid = os.fork()
            if not pid:
                signal.raise_signal(signal.SIGTERM)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert seen == [signal.SIGTERM]
    """)


def test_names(manager: Things) -> None:
    assert len(manager) == 0
    manager["b"] = np.arange(3)
    manager["a"] = a = manager.ones(4)
    assert sorted(manager) == ["a", "b"]
    assert "a" in manager
    assert "c" not in manager
    a[0] = 5
    assert manager["a"].sum() == 8
    assert_same(np.array(manager["b"]), np.arange(3))
    del manager["a"]
    with pytest.raises(LookupError):
        manager["a"]
    with pytest.raises(LookupError):
        del manager["a"]
    with pytest.raises(TypeError):
        manager[3]
    del manager["b"]
    assert list(manager) == []
    assert a.sum() == 8


def test_run(manager: Things) -> None:
    a = manager.arange(5)
    result = manager.run(scaled, a, factor=2.0)
    assert isinstance(result, HostedArray)
    assert_same(np.array(result), np.arange(5) * 2.0)
    assert_same(np.array(manager.run(np.cumsum, a)), np.cumsum(np.arange(5)))


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("zeros", ((2, 3),), {"dtype": "i4"}),
        ("ones", (4,), {}),
        ("full", ((2, 2), 7), {}),
        ("array", ([[1, 2], [3, 4]],), {"dtype": float}),
        ("array", ([1, 2],), {"ndmin": 2}),
        ("asarray", (range(4),), {}),
        ("arange", (2, 10, 3), {}),
        ("linspace", (0, 1, 5), {}),
    ],
)
def test_creators(manager: Things, name: str, args: Any, kwargs: Any) -> None:
    assert_same(np.array(getattr(manager, name)(*args, **kwargs)), getattr(np, name)(*args, **kwargs))


def test_empty_and_asarray_of_a_proxy(manager: Things) -> None:
    a = manager.empty((3, 2), dtype="f4")
    assert (a.shape, a.dtype) == ((3, 2), np.dtype("f4"))
    assert manager.asarray(a) is a
    copy = manager.array(a)
    copy[...] = 1
    a[...] = 0
    assert copy.sum() == 6


def test_creators_outside_a_host() -> None:
    with pytest.raises(NoHostError):
        arrayhost.ones(3)


def test_attributes_and_methods_of_hosted_objects(manager: Things) -> None:
    model = manager.Model(4)
    assert isinstance(model, HostedObject)
    assert (model.n, model.kind, len(model)) == (4, "model", 4)
    model.n = 6
    assert len(model) == 6
    model.label = "x"
    assert model.label == "x"
    del model.label
    with pytest.raises(AttributeError):
        model.label
    with pytest.raises(AttributeError):
        model._secret
    with pytest.raises(AttributeError, match="private"):
        model._callmethod("__getattribute__", ("_secret",))
    assert pickle.loads(pickle.dumps(model)).n == 6


def test_exposed_bounds_what_is_reached(manager: Things) -> None:
    counter = manager.Counter()
    assert counter.slow_add() == 1
    with pytest.raises(AttributeError):
        counter.hidden()
    with pytest.raises(AttributeError):
        counter.count


def test_method_to_typeid_hosts_the_result(manager: Things) -> None:
    counter = manager.Parent(1).child()
    assert isinstance(counter, HostedObject)
    assert [counter.slow_add(), counter.slow_add()] == [1, 2]


def test_serialized_calls_run_one_at_a_time(manager: Things) -> None:
    counter = manager.Serial()
    threads = [threading.Thread(target=counter.slow_add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.count == 8


def test_hosted_queue_and_event_block_side_by_side(manager: Things) -> None:
    items, event = manager.Queue(), manager.Event()
    got: list[Any] = []
    waiters = [
        threading.Thread(target=lambda: got.append(items.get(timeout=20))),
        threading.Thread(target=lambda: got.append(event.wait(20))),
    ]
    for waiter in waiters:
        waiter.start()
    assert not event.is_set()
    assert items.empty()
    event.set()
    waiters[1].join()
    assert got == [True]
    items.put("item")
    waiters[0].join()
    assert got == [True, "item"]
    with pytest.raises(queue.Empty):
        items.get(block=False)


def test_arrays_made_inside_a_class_come_as_proxies(manager: Things) -> None:
    model = manager.Model(5)
    weights, again, both = model.get_weights(), model.weights, model.both()
    assert isinstance(weights, HostedArray)
    assert isinstance(again, HostedArray)
    assert isinstance(both["weights"], HostedArray)
    weights[0] = 10
    model.double()
    assert_same(np.array(both["weights"]), np.array([20.0, 2.0, 2.0, 2.0, 2.0]))
    assert_same(np.array(again), np.array(weights))


def test_exceptions_keep_their_type_and_tell_where_in_the_host(manager: Things) -> None:
    model = manager.Model(1)
    with pytest.raises(KeyError) as caught:
        model.fail("key")
    assert caught.value.args == ("gone",)
    assert any("Traceback in the host" in note and "in fail" in note for note in caught.value.__notes__)
    with pytest.raises(OwnError) as own:
        model.fail("own")
    assert own.value.args == ("mine", 3)
    assert any("in fail" in note for note in own.value.__notes__)


def test_register_refuses_what_cannot_be_called() -> None:
    class Other(ArrayManager):
        pass

    with pytest.raises(TypeError, match="cannot be called"):
        Other.register("number", 3)
    with pytest.raises(TypeError, match="typeid"):
        Other.register(3, np.ones)


def reduce_part(job: tuple[Any, int, int]) -> tuple[Any, Any, Any]:
    images, start, stop = job
    part = images[start:stop]
    return np.array(part.sum(axis=0)), part.max(), os.getpid()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_digits_and_photographs_reduced_by_four_workers(manager: Things, method: str) -> None:
    with multiprocessing.get_context(method).Pool(4) as pool:
        for images in (load_digits().data, *load_sample_images().images):
            hosted = manager.array(images)
            edges = np.linspace(0, len(images), 5).astype(int)
            jobs = [(hosted, int(start), int(stop)) for start, stop in itertools.pairwise(edges)]
            results = pool.map(reduce_part, jobs, chunksize=1)
            # All are small whole numbers: any order of adding gives the same sum.
            assert_same(np.sum([part for part, _, _ in results], axis=0), images.sum(axis=0))
            assert_same(max(part for _, part, _ in results), images.max())
            assert_same(hosted.copy(), images)
        pool.close()
        pool.join()
