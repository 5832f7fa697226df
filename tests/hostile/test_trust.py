"""Who may: other users not at all, peers that are not trusted without pickles or Python."""

import ast
import os
import pickle
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import arrayhost
from arrayhost import ArgumentEncodingError, ArrayManager, NotAuthorizedError
from arrayhost.client.session import Session
from arrayhost.client.ways import UnixWay
from arrayhost.wire import failures
from arrayhost.wire.addresses import bind_unix
from arrayhost.wire.codec import PICKLE, Encoder
from arrayhost.wire.frames import Kind
from arrayhost.wire.hello import SESSION
from tests.hostile.peers import Peer, caller, error_name, host_with, session_peer
from tests.support import assert_same, child, run_python

SOURCE = Path(arrayhost.__file__).parent


class Canary:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "sang"
    yield path
    assert not path.exists(), "the canary was unpickled"


def with_canary(value: list[Any], data: bytes) -> Iterator[bytes]:
    """Encode `value` again and again, with a pickle in another place each time."""
    for extension in (msgpack.ExtType(PICKLE, data), data):
        for place in range(len(value)):
            for put in (extension, [extension], {"key": extension}, msgpack.ExtType(1, msgpack.packb([extension]))):
                yield Encoder(lambda _: None, allow_pickle=False).encode([*value[:place], put, *value[place + 1 :]])


def requests(array: Any, ident: int) -> dict[int, list[Any]]:
    return {
        Kind.CREATE: ["#ones", [3], {}, None],
        Kind.RUN: [None, [], {}, None],
        Kind.CALL: [ident, "count", [1], {}, None],
        Kind.EVALUATE: ["operator", "add", "", None, [array, 1], {}, None],
        Kind.APPLY: [array, None, [], {}, 1.0, None],
        Kind.SET_ITEM: [array, 0, 1, None],
        Kind.ATTACH: [array],
        Kind.SNAPSHOT: [[array], None],
        Kind.CLAIM: [1],
        Kind.PUT_NAME: ["name", 1, True, False],
        Kind.CREATE_NAME: ["name", [3], "f8", "C", 0, True, None],
        Kind.GET_NAME: ["a"],
        Kind.DELETE_NAME: ["a"],
        Kind.ATTRIBUTES: [array, {}, [], "r"],
        Kind.RECORDS: ["a"],
        Kind.LIST_NAMES: [None],
        Kind.STATISTICS: [None],
        Kind.DESCRIBE: [None],
    }


def test_no_pickle_of_an_untrusted_peer_is_read_in_any_field(nest: Path) -> None:
    data = pickle.dumps(Canary(nest))
    with host_with(trust_peers=False) as manager:
        a = manager.ones(5)
        array = a.reference(a._source.link, by_value=False)
        session, _ = session_peer(manager.address)
        with session:
            for kind, value in requests(array, 1).items():
                for body in with_canary(value, data):
                    with caller(manager.address) as peer:
                        peer.ask(kind, body)
            for kind in (Kind.RELEASE, Kind.EXPORT, Kind.FORK_GUARD, Kind.ABANDON):
                for body in (data, msgpack.packb(data), msgpack.packb([msgpack.ExtType(PICKLE, data)])):
                    lease_channel, _ = session_peer(manager.address)
                    with lease_channel:
                        assert lease_channel.ask(kind, body) is None
        assert a.sum() == 5


def test_nothing_is_unpickled_before_the_hello_is_accepted(nest: Path) -> None:
    data = pickle.dumps(Canary(nest))
    fields: list[Any] = [SESSION, bytes(16), 0, b"", "r+", b"", True]
    with ArrayManager() as manager:
        for place in range(len(fields)):
            for put in (data, msgpack.ExtType(PICKLE, data)):
                with Peer(manager.address) as peer:
                    answer = peer.ask(Kind.HELLO, msgpack.packb([*fields[:place], put, *fields[place + 1 :]]))
                    assert answer is not None, (place, put)
                    assert error_name(answer) in ("ProtocolError", "NotAuthorizedError")
        with Peer(manager.address) as peer:
            body = Encoder(lambda _: None, allow_pickle=True).encode([Canary(nest), [], {}, None])
            assert error_name(peer.ask(Kind.RUN, body)) == "ProtocolError"


def test_a_client_reads_no_pickle_of_a_host_it_does_not_trust(nest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = pickle.dumps(Canary(nest))
    connect = UnixWay.connect

    def untrusted(self: UnixWay) -> Any:
        made = connect(self)
        made.trusted = False
        return made

    with ArrayManager() as manager:
        hosted = manager.run(Canary, nest)
        ident = hosted._arrayhost_handle.ident
        monkeypatch.setattr(UnixWay, "connect", untrusted)
        session = Session(UnixWay(str(manager.address)))
        with pytest.raises(arrayhost.ProtocolError, match="pickle"):
            session.request(Kind.CALL, [ident, "#GETVALUE", [], {}, None])
        session.close()
    error = failures.rebuild(["x:Y", ["text"], [], canary, "text"], allow_pickle=False)
    assert isinstance(error, arrayhost.RemoteError)
    assert isinstance(failures.rebuild(["builtins:SystemExit", [], [], None, ""], allow_pickle=False), Exception)
    assert isinstance(failures.rebuild([1, 2], allow_pickle=False), arrayhost.ProtocolError)


def test_the_canary_sings_for_the_trusted(tmp_path: Path) -> None:
    with ArrayManager() as manager:
        manager.run(len, [Canary(tmp_path / "sang")])
    assert (tmp_path / "sang").exists()


@pytest.fixture
def untrusting() -> Iterator[ArrayManager]:
    with host_with(trust_peers=False) as running:
        yield running


def test_arrays_work_without_pickles(untrusting: ArrayManager) -> None:
    values = np.arange(12.0).reshape(3, 4)
    a = untrusting.array(values).on_host
    assert_same(a.sum(axis=0), values.sum(axis=0))
    assert_same(np.sort(a, axis=1), np.sort(values, axis=1))
    assert_same(np.linalg.norm(a), np.linalg.norm(values))
    a += 1
    np.add.at(a, (0, 0), 5)
    a[1:, ::2] = [[1, 2], [3, 4]]
    values += 1
    np.add.at(values, (0, 0), 5)
    values[1:, ::2] = [[1, 2], [3, 4]]
    assert_same(a.copy(), values)
    untrusting["a"] = a
    assert list(untrusting) == ["a"]


@pytest.mark.parametrize(
    "parts",
    [
        ["operator", "call", "", None, [1], {}],
        ["operator", "attrgetter", "", None, ["__class__"], {}],
        ["method", "tofile", "", None, ["A", "/tmp/never"], {}],
        ["method", "dump", "", None, ["A", "/tmp/never"], {}],
        ["method", "__reduce_ex__", "", None, ["A", 2], {}],
        ["method", "__class__", "", None, ["A"], {}],
        ["method", "format", "", None, ["{0.__class__}", 1], {}],
        ["get", "__class__", "", None, ["A"], {}],
        ["get", "real", "", None, [5], {}],
        ["set", "strides", "", None, ["A", (0,)], {}],
        ["ufunc", "frompyfunc", "__call__", None, [1], {}],
        ["ufunc", "add", "__class__", None, [1], {}],
        ["function", "numpy:save", "", None, ["/tmp/never", "A"], {}],
        ["function", "numpy:load", "", None, ["/etc/passwd"], {"allow_pickle": True}],
        ["function", "numpy:fromfile", "", None, ["/etc/passwd"], {}],
        ["function", "numpy.lib.stride_tricks:as_strided", "", None, ["A", (10**6,)], {}],
        ["function", "numpy.testing:runstring", "", None, ["print(1)", {}], {}],
        ["function", "numpy.f2py.__main__:main", "", None, [], {}],
        ["function", "os:system", "", None, ["true"], {}],
    ],
    ids=lambda parts: f"{parts[0]} {parts[1]}",
)
def test_names_lead_to_arithmetic_only(untrusting: ArrayManager, parts: list[Any]) -> None:
    a = untrusting.ones(5)
    array = a.reference(a._source.link, by_value=False)
    parts = [*parts[:4], [array if isinstance(part, str) and part == "A" else part for part in parts[4]], parts[5]]
    with caller(untrusting.address) as peer:
        answer = peer.ask(Kind.EVALUATE, Encoder(lambda _: None, allow_pickle=False).encode([*parts, None]))
        assert answer is not None
        assert answer[0] == Kind.ERROR
        assert b"NotAuthorizedError" in answer[1] or b"ProtocolError" in answer[1]


def test_functions_are_not_run_for_the_untrusted(untrusting: ArrayManager) -> None:
    with pytest.raises(ArgumentEncodingError):
        untrusting.run(np.ones, 3)
    with caller(untrusting.address) as peer:
        body = Encoder(lambda _: None, allow_pickle=False).encode([bytes, [10], {}, None])
        answer = peer.ask(Kind.RUN, body)
        assert answer is not None
        assert b"NotAuthorizedError" in answer[1]


# -- unpickling stands in two places -----------------------------------------------------------------------------------

GATES = {"wire/codec.py", "wire/failures.py"}


def unpickling(source: str) -> list[str]:
    """What in a module may read pickles."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("loads", "load", "Unpickler", "Pickler"):
            owner = ast.unparse(node.value)
            if "pickle" in owner.lower() or owner in ("marshal", "dill", "np", "numpy") or node.attr == "Unpickler":
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cloudpickle", "marshal", "dill", "shelve"):
            found.append(f"from {node.module} import")
        elif isinstance(node, ast.Name) and node.id in ("eval", "exec"):
            found.append(node.id)
    return found


def test_only_two_modules_unpickle() -> None:
    read = {path.relative_to(SOURCE).as_posix(): unpickling(path.read_text()) for path in SOURCE.rglob("*.py")}
    layers = ("wire/", "host/", "client/", "evaluation/", "core/", "sync/", "memory/")
    assert {name for name, found in read.items() if found and name.startswith(layers)} <= GATES | {
        "client/functions.py"
    }
    assert all(read[name] for name in GATES)


def test_the_search_for_unpickling_looks() -> None:
    assert unpickling("import pickle\npickle.loads(b'')")
    assert unpickling("import pickle as p\np.Unpickler(f)")
    assert unpickling("from cloudpickle import loads")
    assert not unpickling("import pickle\npickle.dumps(1)")


# -- users and places --------------------------------------------------------------------------------------------------


def test_a_socket_and_its_folder_are_its_users_own(tmp_path: Path) -> None:
    path = tmp_path / "hosts" / "one"
    with ArrayManager(address=f"unix:{path}") as manager:
        assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        a = manager.ones(1_000_000)
        with a.read():
            modes = {
                stat.S_IMODE(os.stat(f"/proc/{manager.statistics().pid}/fd/{name}").st_mode)
                for name in os.listdir(f"/proc/{manager.statistics().pid}/fd")
                if "memfd:arrayhost" in os.readlink(f"/proc/{manager.statistics().pid}/fd/{name}")
            }
        assert modes == {0o600}
    assert not path.exists()


def test_links_and_others_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotAuthorizedError, match="symbolic link"):
        bind_unix(f"unix:{tmp_path}/link")
    tmp_path.chmod(0o777)
    with pytest.raises(NotAuthorizedError, match="chmod 700"):
        bind_unix(f"unix:{tmp_path}/socket")
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot listen"):
        bind_unix(f"unix:{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_what_another_user_put_there_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
    os.chown(tmp_path / "socket", 65534, 65534)
    with pytest.raises(NotAuthorizedError, match="belongs to user 65534"):
        bind_unix(f"unix:{tmp_path}/socket")
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(NotAuthorizedError, match="folder"):
        bind_unix(f"unix:{tmp_path}/other")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_is_not_let_in_and_not_talked_to() -> None:
    with (
        ArrayManager() as manager,
        child(
            """
        import os, socket, sys
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect("\\0" + sys.argv[1].removeprefix("unix:@"))
        sock.settimeout(10)
        print(repr(sock.recv(100)))
        server = socket.socket(socket.AF_UNIX)
        server.bind("\\0arrayhost-test-other-user-" + str(os.getpid()))
        server.listen()
        print(os.getpid(), flush=True)
        sys.stdin.readline()
        """,
            str(manager.address),
        ) as stranger,
    ):
        assert stranger.read_line() == "b''"
        pid = stranger.read_line()
        with pytest.raises(NotAuthorizedError, match="65534"):
            arrayhost.connect(f"unix:@arrayhost-test-other-user-{pid}")
        stranger.send()


def test_a_dead_hosts_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    first = bind_unix(address)
    with pytest.raises(OSError, match="cannot listen"):
        bind_unix(address)
    first.close()
    second = bind_unix(address)
    second.close()


def test_an_unexpected_error_ends_one_peer_not_the_host() -> None:
    source = """
    import logging, threading, msgpack
    from arrayhost import ArrayManager
    from arrayhost.host.server import Server
    from tests.hostile.peers import Hello, Kind, Peer, SESSION, pack_hello, session_peer
    admit, failed = Server._admit, []
    def fail_once(self, *args):
        if failed:
            return admit(self, *args)
        failed.append(1)
        raise ZeroDivisionError("a defect")
    Server._admit = fail_once
    logging.basicConfig(level=logging.ERROR)
    handle = ArrayManager().get_server()
    thread = threading.Thread(target=handle.serve_forever)
    thread.start()
    with Peer(handle.address) as peer:
        assert peer.ask(Kind.HELLO, pack_hello(Hello(SESSION, bytes(16)))) is None
    lease_channel, _ = session_peer(handle.address)
    lease_channel.close()
    handle.stop()
    thread.join()
    """
    root = str(Path(__file__).parents[2])
    done = run_python(source, env={"PYTHONPATH": os.pathsep.join([str(SOURCE.parent), root])})
    assert "unexpected error" in done.stderr
    assert "ZeroDivisionError" in done.stderr
