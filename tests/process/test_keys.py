"""Who needs a host's key: with one of its own everybody, without one those who were given another."""

import json
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from pathlib import Path
from typing import Any

import pytest

import arrayhost
from arrayhost import ArrayManager, HostedArray, NotAuthorizedError
from tests.support import run_python

KEY = b"the key of this host"


class Forker:
    """Hosted code that forks a process, which uses what it inherits."""

    def __init__(self) -> None:
        self.a = arrayhost.zeros(1)

    def fork(self) -> float:
        if not (pid := os.fork()):
            self.a[0] = 7
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return float(self.a[0])


class Arrays(ArrayManager):
    pass


Arrays.register("Forker", Forker)


@pytest.fixture(scope="module")
def guarded() -> Iterator[ArrayManager]:
    with Arrays(authkey=KEY) as manager:
        manager["a"] = [1.0, 2.0, 3.0]
        manager["a"][0] = 1
        assert arrayhost.connect(manager.address, mode="r")["a"].sum() == 6  # every connection is made now
        yield manager


STRANGER = """
    import json, multiprocessing, os, pickle, sys
    import arrayhost

    def ask(address="", data="", process=None, given=None, file=None):
        if process is not None:
            multiprocessing.current_process().authkey = process.encode()
        if file is not None:
            os.environ["ARRAYHOST_KEY_FILE"] = file
        key = None if given is None else given.encode()
        try:
            a = pickle.loads(bytes.fromhex(data)) if data else arrayhost.connect(address, key)["a"]
            print(float(a.sum()), flush=True)
        except arrayhost.NotAuthorizedError as error:
            print("refused:", error, flush=True)

    for case in json.loads(sys.argv[1]):
        if not (pid := os.fork()):
            ask(**case)
            os._exit(0)
        os.waitpid(pid, 0)
"""
REFUSED = "refused: this host was given an authkey, which its clients need"
OTHER = "refused: the client's authkey is not this host's"


def strangers(*cases: dict[str, Any]) -> list[str]:
    """What processes of another program are told, each of which asks for the sum in one way."""
    return run_python(STRANGER, json.dumps(cases)).stdout.splitlines()


def test_a_host_with_a_key_refuses_who_lacks_it(guarded: ArrayManager, tmp_path: Path) -> None:
    address, key = guarded.address, KEY.decode()
    good, empty = tmp_path / "key", tmp_path / "empty"
    good.write_bytes(KEY + b"\n")
    empty.touch()
    told = strangers(
        {"address": address},
        {"address": address, "given": "wrong"},
        {"address": address, "process": "wrong"},
        {"address": address, "given": key},
        {"address": address, "process": key},
        {"address": address, "file": str(good)},
        {"address": address, "file": str(empty)},
        {"address": address, "file": str(tmp_path / "missing")},
    )
    assert [line.startswith(REFUSED) for line in told[:3]] == [True] * 3
    assert told[3:6] == ["6.0"] * 3
    assert told[6].endswith("empty is empty")
    assert told[7].endswith("missing cannot be read: No such file or directory")


def test_the_error_is_the_standard_librarys(guarded: ArrayManager) -> None:
    with pytest.raises(AuthenticationError):
        arrayhost.connect(guarded.address, b"wrong")
    # What was used once at an address is used again.
    assert arrayhost.connect(guarded.address)["a"].sum() == 6


def test_a_host_without_one_takes_all_processes_of_its_user_but_for_those_who_want_another() -> None:
    with ArrayManager() as manager:
        manager["a"] = [2.0]
        address = manager.address
        told = strangers({"address": address}, {"address": address, "process": "any"},
                         {"address": address, "given": "any"})  # fmt: skip
        assert told[:2] == ["2.0"] * 2
        assert told[2].startswith(OTHER)
        assert arrayhost.connect(manager.address, manager.authkey)["a"].sum() == 2


def test_another_host_at_an_address_where_a_key_was_used(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/host"
    with ArrayManager(address, KEY) as manager:
        assert len(arrayhost.connect(address)) == 0
    with ArrayManager(address) as manager:
        manager["a"] = [2.0]
        assert arrayhost.connect(address)["a"].sum() == 2


def test_a_pickle_holds_no_key(guarded: ArrayManager, tmp_path: Path) -> None:
    for what in (guarded["a"], guarded["a"].on_host, guarded.Forker(), guarded):
        assert KEY not in pickle.dumps(what)
    data = pickle.dumps(guarded["a"]).hex()
    file = tmp_path / "key"
    file.write_bytes(KEY)
    told = strangers({"data": data}, {"data": data, "file": str(file)}, {"data": data, "process": KEY.decode()})
    assert told[0].startswith(REFUSED)
    assert told[1:] == ["6.0"] * 2


def add(a: HostedArray, manager: ArrayManager, forker: Any) -> None:
    a += 1
    assert type(pickle.loads(pickle.dumps(a))) is type(a)
    assert manager["counts"].sum() == forker.a[0]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("mode", ["r+", "r"])
def test_processes_that_are_started_are_given_it(guarded: ArrayManager, method: str, mode: str) -> None:
    guarded["counts"] = [0.0]
    context: Any = multiprocessing.get_context(method)
    passed = guarded if mode == "r+" else arrayhost.connect(guarded.address, mode="r")
    forker = guarded.Forker()
    forker.a[0] = 1
    process = context.Process(target=add, args=(guarded["counts"], passed, forker))
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    assert guarded["counts"][0] == 1


def test_what_hosted_code_forks_has_it(guarded: ArrayManager) -> None:
    assert guarded.Forker().fork() == 7


def test_an_empty_key_is_one() -> None:
    with ArrayManager(authkey=b"") as manager:
        assert strangers({"address": manager.address})[0].startswith(REFUSED)
        assert len(arrayhost.connect(manager.address, b"")) == 0
    with pytest.raises(NotAuthorizedError, match="some 32 random bytes"):
        ArrayManager(authkey=b"", listen="tcp://127.0.0.1:0").start()
