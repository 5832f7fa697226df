"""A host that ends and comes back: proxies of named arrays find theirs again, all others say that they are gone."""

import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arrayhost
from arrayhost import HostGoneError, StaleProxyError
from tests.support import assert_same, child

Serve = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def restart(serve: Serve) -> Callable[[], Any]:
    """Start a host; kill the one that there is, first; return a manager of the new one."""
    hosts: list[subprocess.Popen[bytes]] = []

    def restart() -> Any:
        for host in hosts:
            host.kill()
            host.wait()
        hosts[:] = [serve()]
        return arrayhost.connect()

    return restart


USES: dict[str, Callable[[Any], Any]] = {
    "item": lambda a: a.__setitem__(0, 5.0),
    "part": lambda a: a[:1].__iadd__(5.0),
    "method": lambda a: a.fill(5.0),
    "operator": lambda a: a.__iadd__(5.0),
    "section": lambda a: in_section(a),
    "read": lambda a: a.read().__enter__().copy(),
    "function": lambda a: np.sort(a),
    "attrs": lambda a: a.attrs.update(x=1),
    "on_host": lambda a: a.on_host.sum(),
}


def in_section(a: Any) -> None:
    with a.write() as x:
        x[0] = 5.0


@pytest.mark.slow
@pytest.mark.watchdog(120)
def test_named_arrays_are_found_again(restart: Callable[[], Any]) -> None:
    manager = restart()
    names = {use: f"a-{use}" for use in USES}
    old = {use: manager.create(name, 4) for use, name in names.items()}
    views = {use: a[1:3] for use, a in old.items()}
    other = restart()
    for name in names.values():
        other.create(name, 4, fill_value=10.0)
    for use, a in old.items():
        USES[use](a)
        assert a.copy()[-1] in (10.0, 15.0, 5.0), use
        assert_same(a.copy(), other[names[use]].copy())  # the same array, whatever was done to it
        a[3] = -1.0
        assert other[names[use]][3] == -1.0
        # Views that were made before the end follow, too.
        views[use][...] = 7.0
        assert other[names[use]].copy()[1:3].tolist() == [7.0, 7.0]
    # A manager that was connected to the old host goes on with the new one.
    assert sorted(manager) == sorted(names.values())
    assert other["a-item"][0] == 5.0
    assert other["a-part"][0] == 15.0  # once, not twice


def test_while_there_is_no_host_reads_go_on_and_writes_do_not(serve: Serve) -> None:
    host = serve()
    manager = arrayhost.connect()
    a = manager.create("a", 3, fill_value=2.0)
    host.kill()
    host.wait()
    assert a.sum() == 6.0
    assert_same(np.sort(a), np.full(3, 2.0))
    with a.read() as x:
        assert x[0] == 2.0
    for write in (USES["item"], USES["section"], USES["method"], USES["attrs"]):
        with pytest.raises(HostGoneError):
            write(a)
    with pytest.raises(HostGoneError):
        manager["a"]
    assert a.sum() == 6.0


def test_what_is_gone_says_so(restart: Callable[[], Any]) -> None:
    manager = restart()
    unnamed = manager.ones(3)
    missing, other_shape, other_type = (manager.create(name, 3) for name in ("missing", "shape", "type"))
    new = restart()
    new.create("shape", 4)
    new.create("type", 3, "f4")
    with pytest.raises(HostGoneError):
        unnamed[0] = 1
    with pytest.raises(StaleProxyError, match="no array named 'missing'"):
        missing[0] = 1
    with pytest.raises(
        StaleProxyError, match=r"float64 of shape \(4,\) where this proxy's was float64 of shape \(3,\)"
    ):
        other_shape.fill(1)
    with pytest.raises(StaleProxyError, match="float32"):
        in_section(other_type)
    assert new["shape"].sum() == 0


def test_what_may_have_been_carried_out_is_not_done_again(serve: Serve, place: Path) -> None:
    (place / "dying.py").write_text("import os\ndef die():\n    os._exit(1)\n")
    host = serve("--register", "dying:die", cwd=place)

    class Dying(arrayhost.ArrayManager):
        pass

    Dying.register("die")
    manager = Dying(address=arrayhost.connect().address)
    manager.connect()
    with pytest.raises(HostGoneError) as caught:
        manager.die()
    assert not caught.value.nothing_sent
    assert host.wait(20) == 1  # its sockets are closed one by one: the session may outlive the call
    serve()  # in which nothing dies
    assert list(manager) == []


READER = """
    import pickle, sys
    import arrayhost

    held = [pickle.loads(bytes.fromhex(data)) for data in sys.argv[1:]]
    print("ready", [a.tolist() for a in held])
    for line in sys.stdin:
        print("found", [pickle.loads(bytes.fromhex(data)).tolist() for data in line.split()])
        held[0][0] = 8.0
        print("held", [a.copy().tolist() for a in held])
"""


def test_pickles_of_named_arrays_find_them_by_name(restart: Callable[[], Any]) -> None:
    manager = restart()
    a = manager.create("a", 4, fill_value=1.0)
    manager.put("part", manager.arange(10.0)[5:8])
    part = manager["part"]
    data = [pickle.dumps(proxy).hex() for proxy in (a, a[::2], a.on_host[1:], part, part[1:])]
    assert all(len(one) < 2 * 1000 for one in data)
    others = [manager.create(name, 4) for name in ("missing", "other")]
    gone = [pickle.dumps(proxy) for proxy in (*others, manager.ones(3))]
    with child(READER, *data, timeout=40) as reader:
        assert (
            reader.expect("ready") == "[[1.0, 1.0, 1.0, 1.0], [1.0, 1.0], [1.0, 1.0, 1.0], [5.0, 6.0, 7.0], [6.0, 7.0]]"
        )
        new = restart()
        new["a"] = np.arange(4.0)
        new["part"] = np.arange(3.0)
        new["other"] = np.arange(5)
        found = "[[0.0, 1.0, 2.0, 3.0], [0.0, 2.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [1.0, 2.0]]"
        with child(READER, *data, timeout=40) as late:
            assert late.expect("ready") == found
        reader.send(" ".join(data))
        assert reader.expect("found") == found
        assert (
            reader.expect("held") == "[[8.0, 1.0, 2.0, 3.0], [8.0, 2.0], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [1.0, 2.0]]"
        )
    for one, problem in zip(
        gone, ("no array named 'missing'", r"int64 of shape \(5,\)", "another one now"), strict=True
    ):
        with pytest.raises((StaleProxyError, HostGoneError), match=problem):
            pickle.loads(one)
