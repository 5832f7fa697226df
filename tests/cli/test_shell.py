"""The commands, as real processes against a real host."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import arrayhost
from arrayhost.cli.commands import arrayhost as commands
from tests.cli.conftest import Run, answers, log_of, parsed
from tests.support import assert_same, child, wait_until

Serve = Callable[..., subprocess.Popen[bytes]]
Refused = Callable[..., str]


@pytest.mark.slow
def test_put_and_get_every_kind_of_file(serve: Serve, run: Run, tmp_path: Path) -> None:
    serve()
    manager = arrayhost.connect()
    china = load_sample_image("china.jpg")
    digits = load_digits()
    fortran = np.asfortranarray(np.random.default_rng(1).random((50, 7)))
    os.chdir(tmp_path)
    Image.fromarray(china).save("china.png")
    np.savez("digits.npz", images=digits.images, target=digits.target)
    np.save("f.npy", fortran)
    Path("prices.csv").write_text("day,close,who\n2024-01-01,1.5,a\n2024-01-02,2.5,bb\n2024-01-03,,c\n")
    pa.parquet.write_table(pa.table({"x": [1, 2, 3], "y": [0.5, 1.0, 2.0]}), "t.parquet")
    np.arange(12, dtype="<u2").tofile("r.raw")

    for file in ("china.png", "digits.npz", "f.npy", "prices.csv"):
        run("put", file)
    records = parsed(run("put", "t.parquet", "--matrix", "--name", "m", "--json"))
    assert [(one["names"], one["shape"]) for one in records] == [[["m"], [3, 2]]] or records[0]["shape"] == [3, 2]
    run("put", "r.raw", "--dtype", "<u2", "--shape", "3,-1")
    assert sorted(manager) == ["china", "digits.images", "digits.target", "f", "m", "prices", "r"]
    assert_same(manager["china"].copy(), china)
    assert_same(manager["digits.images"].copy(), digits.images)
    assert_same(manager["digits.target"].copy(), digits.target)
    assert_same(manager["f"].copy("K"), fortran)
    assert_same(manager["m"].copy(), np.array([[1, 0.5], [2, 1.0], [3, 2.0]]))
    assert_same(manager["r"].copy(), np.arange(12, dtype="<u2").reshape(3, 4))
    prices = manager["prices"]
    assert prices.dtype.names == ("day", "close", "who")
    assert_same(prices["close"].copy(), np.array([1.5, 2.5, np.nan]))
    assert (
        prices["day"].copy().astype("M8[D]").tolist() == np.arange("2024-01-01", "2024-01-04", dtype="M8[D]").tolist()
    )
    assert prices["who"].copy().tolist() == ["a", "bb", "c"]

    run("get", "china", "back.png")
    assert_same(np.asarray(Image.open("back.png")), china)
    run("get", "f", "back.npy")
    assert Path("back.npy").read_bytes() == Path("f.npy").read_bytes()
    run("get", "digits.target", "back.npz")
    assert_same(np.load("back.npz")["digits.target"], digits.target)
    run("get", "prices", "back.csv")
    run("put", "back.csv")
    assert_same(manager["back"]["close"].copy(), prices["close"].copy())
    run("get", "m", "back.parquet")
    assert pa.parquet.read_table("back.parquet").column("1").to_pylist() == [0.5, 1.0, 2.0]
    run("get", "r", "back.raw")
    assert Path("back.raw").read_bytes() == Path("r.raw").read_bytes()
    assert not [name for name in os.listdir() if name.startswith(".")]


@pytest.mark.census_ignore("pipe:", reason="pyarrow keeps a pipe for signals once it has read a table")
def test_what_cannot_be_put_or_got(serve: Serve, run: Run, refused: Refused, tmp_path: Path) -> None:
    serve()
    manager = arrayhost.connect()
    manager["a"] = np.ones((2, 2))
    os.chdir(tmp_path)
    np.save("a.npy", np.zeros(3))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("broken.npy").write_bytes(b"\x93NUMPY\x01\x00nonsense")
    Path("no.png").write_text("no picture")
    Path("no.parquet").write_text("no table")
    Path("r.raw").write_bytes(b"123")
    Path("x.unknown").write_text("?")
    Path("two.csv").write_text("a,a\n1,2\n")
    for words, message in [
        (("a.npy",), "overwrite"),
        (("objects.npy",), "objects.npy"),
        (("broken.npy",), "broken.npy"),
        (("no.png",), "no picture"),
        (("no.parquet",), "no.parquet"),
        (("r.raw",), "--dtype"),
        (("r.raw", "--dtype", "i2"), "whole number"),
        (("r.raw", "--dtype", "i1", "--shape", "2,2"), "3 elements"),
        (("x.unknown",), "--format"),
        (("two.csv",), "same name"),
    ]:
        assert message in refused("put", *words)
    for words in [("a.npy", "--name", "../x"), ("a.npy", "--dtype", "q!"), ("a.npy", "--shape", "a"), ("gone.npy",)]:
        refused("put", *words, status=2)
    assert "exists" in run("get", "a", "a.npy", status=1).stderr
    assert_same(np.load("a.npy"), np.zeros(3))
    assert "no array named 'b'" in refused("get", "b", "b.npy")
    assert "uint8" in refused("get", "a", "a.png")
    assert "folder" in refused("get", "a", "nowhere/a.npy")
    assert list(manager) == ["a"]
    assert not [name for name in os.listdir() if name.startswith(".") or name in ("b.npy", "a.png")]
    old = manager["a"]
    run("put", "a.npy", "--overwrite")
    assert_same(old.copy(), np.ones((2, 2)))
    assert_same(manager["a"].copy(), np.zeros(3))
    run("get", "a", "a.npy", "--overwrite")


@pytest.mark.slow
def test_ls_show_cp_rm(serve: Serve, run: Run, tmp_path: Path) -> None:
    serve()
    manager = arrayhost.connect()
    values = np.random.default_rng(2).normal(size=(200, 30))
    manager["a"] = values
    a = manager["a"]
    a.attrs["note"] = "[red]no markup[/red] \x1b[31m"
    manager["nan"] = np.array([1.0, np.nan, np.inf, 3])
    manager["words"] = np.array(["x", "yy"])
    manager["empty"] = np.empty((0, 3))
    manager["when"] = np.array(["2024-01-01", "NaT", "2024-03-01"], "M8[D]")
    unnamed = manager.zeros(5)
    with child("import sys, arrayhost; a = arrayhost.connect()['a']; print('ready'); input()") as holder:
        holder.expect("ready")
        listed = parsed(run("ls", "--json"))
        assert [one["names"] for one in listed] == [["a"], ["empty"], ["nan"], ["when"], ["words"]]
        assert len(parsed(run("ls", "--all", "--json"))) == 6
        assert unnamed.size == 5  # held until here
        assert "float64" in run("ls").stdout
        with a.write() as x:
            x[0, 0] = 2.5
            shown = parsed(run("show", "a", "--json", "--no-values"))
        assert {one["pid"] for one in shown["holders"]} == {os.getpid(), holder.pid}
        assert shown["lock"] == {"mode": "exclusive", "owner_pid": os.getpid(), "waiters": []}
        holder.send()
    values[0, 0] = 2.5
    shown = parsed(run("show", "a", "--json"))
    assert shown["statistics"]["version"] == a.statistics().version
    assert shown["attrs"] == dict(a.attrs)
    assert shown["creator"]["pid"] == os.getpid()
    figures = shown["values"][""]
    assert (figures["min"], figures["max"]) == (values.min(), values.max())
    np.testing.assert_allclose([figures["mean"], figures["std"]], [values.mean(), values.std()], rtol=1e-9)
    assert figures["counts"] == np.histogram(values, 10)[0].tolist()
    text = run("show", "a").stdout
    assert "[red]no markup[/red]" in text
    assert "\x1b" not in text
    nan = parsed(run("show", "nan", "--json"))["values"][""]
    assert (nan["min"], nan["max"], nan["n_nan"], nan["n_infinite"]) == (1, 3, 1, 1)
    assert parsed(run("show", "words", "--json"))["values"] == {}
    assert parsed(run("show", "empty", "--json"))["values"][""]["min"] is None
    assert parsed(run("show", "when", "--json"))["values"][""]["max"] == "2024-03-01"
    run("show", "a", "--plot", tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png").ndim == 3

    run("cp", "a", "b")
    assert_same(manager["b"].copy(), values)
    assert dict(manager["b"].attrs) == dict(a.attrs)
    assert "already" in run("cp", "nan", "b", status=1).stderr
    run("cp", "nan", "b", "--overwrite")
    assert manager["b"].shape == (4,)
    run("rm", "b", "nan")
    assert "'b'" in run("rm", "b", "a", status=1).stderr
    assert "a" not in manager
    run("rm", "b", "--missing-ok")


def test_top(serve: Serve, run: Run) -> None:
    serve("--max-bytes", "1GiB")
    manager = arrayhost.connect()
    a = manager.create("a", 100)
    source = """
        import arrayhost
        a = arrayhost.connect()["a"]
        print("ready")
        while True:
            with a.write() as x:
                x += 1
            a[0] = 0
        """
    with child(source) as writer:
        writer.expect("ready")
        look = parsed(run("top", "--once", "--json", "--interval", "0.3"))
        (array,) = look["arrays"]
        assert array["names"] == ["a"]
        assert array["writes_per_second"] > 1
        assert look["host"]["max_bytes"] == 2**30
        (client,) = [one for one in look["clients"] if one["pid"] == writer.pid]
        assert 0 < client["requests_per_second"] < array["writes_per_second"]
        assert f"{writer.pid}" in run("top", "--once", "--interval", "0.1").stdout
        writer.kill()
    assert a.statistics().version > 0
    process = subprocess.Popen(
        [sys.executable, "-m", "arrayhost", "top", "--json", "--interval", "0.1"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as lines:
        for _ in range(3):
            assert json.loads(lines.readline())["host"]["n_arrays"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_commands_without_a_host(run: Run, refused: Refused) -> None:
    for words in [
        ("ls",),
        ("show", "a"),
        ("rm", "a"),
        ("cp", "a", "b"),
        ("top", "--once"),
        ("stop",),
        ("get", "a", "x.npy"),
    ]:
        assert "arrayhost serve" in refused(*words)
    assert "none runs" in json.dumps(parsed(run("doctor", "--json")))


def test_bad_usage(refused: Refused) -> None:
    for words in [
        ("frob",),
        ("put",),
        ("show",),
        ("show", "../x"),
        ("ls", "--address", "tcp"),
        ("serve", "--max-bytes", "x"),
    ]:
        refused(*words, status=2)


def test_doctor_tells_what_is_wrong(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = {one["check"]: one for one in parsed(run("doctor", "--json"))}
    assert {"kernel", "memfd", "locks", "huge pages", "open files", "memory", "runtime folder", "host"} <= set(findings)
    assert not [one for one in findings.values() if one["state"] == "fails"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "missing"))
    done = subprocess.run([sys.executable, "-m", "arrayhost", "doctor", "--json"], capture_output=True, check=False)
    assert done.returncode == 1
    (broken,) = [one for one in json.loads(done.stdout) if one["state"] == "fails"]
    assert broken["check"] == "runtime folder"
    assert broken["remedy"]


def test_completion_lists_names(serve: Serve, place: Path) -> None:
    serve()
    manager = arrayhost.connect()
    manager["prices"] = [1]
    manager["private"] = [2]
    environment = {
        **os.environ,
        "_ARRAYHOST_COMPLETE": "bash_complete",
        "COMP_WORDS": "arrayhost show pri",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "arrayhost"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["plain,prices", "plain,private"], done.stderr


def test_help_of_every_command() -> None:
    runner = CliRunner()
    for name, command in commands.commands.items():
        result = runner.invoke(commands, [name, "--help"])
        assert result.exit_code == 0
        assert command.help
    assert runner.invoke(commands, ["--version"]).output.strip() == f"arrayhost, version {arrayhost.__version__}"


def test_json_everywhere() -> None:
    without = [
        name for name, command in commands.commands.items() if not any("--json" in p.opts for p in command.params)
    ]
    assert without == ["serve"]  # which prints nothing


# -- a standing host -------------------------------------------------------------------------------------------------


SLOW = (
    "import time\nclass Sleeper:\n    def sleep(self, seconds):\n        time.sleep(seconds)\n        return 'done'\n"
)


def asks(pid: int) -> bool:
    """Whether a process has made its second request."""
    return any(one.pid == pid and one.n_requests == 2 for one in arrayhost.connect().inspect().clients)


def test_its_place_is_private(serve: Serve, place: Path) -> None:
    serve()
    folder = place / "arrayhost"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "host").stat().st_mode) == 0o600


def test_sigterm_drains(serve: Serve, place: Path) -> None:
    (place / "slow.py").write_text(SLOW)
    source = """
        import arrayhost
        class Slow(arrayhost.ArrayManager): pass
        Slow.register("Sleeper")
        manager = Slow(address=arrayhost.connect().address); manager.connect()
        print("answer", manager.Sleeper().sleep(1.0))
        try:
            manager.ones(3)
        except arrayhost.HostGoneError:
            print("gone")
        """
    host = serve("--register", "slow:Sleeper", cwd=place)
    with child(source) as client:
        wait_until(lambda: asks(client.pid))
        host.send_signal(signal.SIGTERM)
        client.expect("answer done")
        client.expect("gone")
        assert host.wait(20) == 0
    assert "ended" in log_of(place)
    assert not (place / "arrayhost" / "host").exists()


def test_the_time_to_drain_is_bounded_and_a_second_signal_ends_it(serve: Serve, place: Path) -> None:
    (place / "slow.py").write_text(SLOW)
    source = """
        import arrayhost
        class Slow(arrayhost.ArrayManager): pass
        Slow.register("Sleeper")
        manager = Slow(address=arrayhost.connect().address); manager.connect()
        try:
            manager.Sleeper().sleep(60)
        except arrayhost.HostGoneError:
            print("gone")
        """
    for drain, signals in (("0.3", 1), ("50", 2)):
        host = serve("--register", "slow:Sleeper", "--drain", drain, cwd=place)
        with child(source) as client:
            wait_until(lambda: asks(client.pid))
            for _ in range(signals):
                host.send_signal(signal.SIGTERM)
                wait_until(lambda: not (place / "arrayhost" / "host").exists())
            assert host.wait(20) == 0
            client.expect("gone")


def test_a_second_host_is_refused_and_a_killed_ones_place_is_taken(serve: Serve, run: Run) -> None:
    first = serve()
    assert "cannot listen" in run("serve", status=1).stderr
    first.kill()
    first.wait()
    serve()
    assert answers()
    stopped = parsed(run("stop", "--json"))["stopped"]
    assert stopped != first.pid
    assert not answers()


def test_systemd_is_told(serve: Serve, run: Run, place: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place / "notify"))
        manager.settimeout(20)
        host = serve(env={"NOTIFY_SOCKET": str(place / "notify")})
        assert manager.recv(1000) == f"READY=1\nMAINPID={host.pid}".encode()
        host.send_signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"
        assert host.wait(20) == 0
    unit = (Path(__file__).parents[2] / "contrib" / "arrayhost.service").read_text()
    assert "Type=notify" in unit
    (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert CliRunner().invoke(commands, [*command.split()[1:], "--help"]).exit_code == 0


def test_one_line_for_each_event(serve: Serve, run: Run, place: Path) -> None:
    host = serve()
    manager = arrayhost.connect()
    manager["a"] = np.ones(3)
    del manager["a"]
    source = "import arrayhost\nwith arrayhost.connect()['b'].write():\n    print('in'); input()"
    manager["b"] = np.ones(3)
    with child(source) as writer:
        writer.expect("in")
        writer.kill()
    wait_until(lambda: "torn" in log_of(place))
    run("stop")
    host.wait(20)
    log = log_of(place)
    for event in (f"process {host.pid} hosts arrays", f"process {os.getpid()} connected", "array 1 created: float64",
                  "name 'a' given", "name 'a' taken", "array 1 freed", f"process {writer.pid} died while it wrote",
                  f"process {writer.pid} has gone", "draining", "has ended"):  # fmt: skip
        assert event in log, event
    assert all(line[:4].isdigit() for line in log.splitlines())


def test_undo_bytes(serve: Serve, refused: Refused, place: Path) -> None:
    """What a host records before a write: as many bytes as it was told, or none."""
    for words, recorded in (
        (("--undo-bytes", "0"), ()),
        (("--undo-bytes", "1k"), ("element", "part")),
        ((), ("element", "part", "whole")),
    ):
        host = serve("--directory", place / "arrays", *words)
        a = arrayhost.connect().create("a", 1000, exist_ok=True)
        writes = {"element": slice(0, 1), "part": slice(0, 128), "whole": slice(None)}
        found = []
        for what, index in writes.items():
            a[index] = -1.0  # what is recorded of the next write
            a[index] = 1.0
            records = b"".join(path.read_bytes() for path in (place / "arrays").glob(".arrayhost-undo-*"))
            if a[index].tobytes().replace(b"\xf0?", b"\xf0\xbf") in records:
                found.append(what)
            a[...] = 0.0
            for path in (place / "arrays").glob(".arrayhost-undo-*"):
                os.truncate(path, 0)
        assert tuple(found) == recorded, words
        host.terminate()
        assert host.wait(20) == 0
    for wrong in ("-1", "x", "1q"):
        assert "--undo-bytes" in refused("serve", "--directory", place / "arrays", "--undo-bytes", wrong, status=2)


def test_metrics(serve: Serve, place: Path) -> None:
    import re
    import urllib.request

    serve("--metrics", "0")
    found = wait_until(lambda: re.search(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", log_of(place)))
    manager = arrayhost.connect()
    a = manager.create("a", 10)
    a[0] = 1

    def metrics() -> dict[str, float]:
        text = urllib.request.urlopen(found[1], timeout=20).read().decode()
        rows = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in rows}

    now = metrics()
    assert now["arrayhost_arrays"] == 1
    assert now["arrayhost_memory_bytes"] == manager.statistics().n_bytes
    assert now["arrayhost_clients"] == 1
    assert now['arrayhost_array_writes_total{name="a"}'] == 1
    assert now['arrayhost_array_bytes{name="a"}'] == 80
    before = now["arrayhost_requests_total"]
    a[0] = 2
    assert metrics()["arrayhost_requests_total"] > before


def test_registered_types_and_bad_ones(serve: Serve, run: Run, place: Path) -> None:
    Path(place / "kinds.py").write_text(
        "import numpy, arrayhost\nclass Types(arrayhost.ArrayManager): pass\n"
        "Types.register('ramp', numpy.arange)\nx = 3\n"
    )
    serve("--register", "kinds:Types", "--register", "numpy:hanning", cwd=place)

    class Types(arrayhost.ArrayManager):
        pass

    Types.register("ramp")
    Types.register("hanning")
    manager = Types(address=arrayhost.connect().address)
    manager.connect()
    assert_same(manager.ramp(4).copy(), np.arange(4))
    assert_same(manager.hanning(5).copy(), np.hanning(5))
    for wrong in ("kinds:nothing", "kinds:x", "nowhere:x", "kinds"):
        run("serve", "--register", wrong, status=2, cwd=place)


def test_connect_starts_a_host_that_outlives_its_starter(run: Run, place: Path) -> None:
    source = """
        import os, sys, numpy as np, arrayhost
        print("ready"); input()
        manager = arrayhost.connect(start=True)
        manager[f"p{os.getpid()}"] = np.ones(3)
        print("pid", manager.statistics().pid)
        input()
        """
    with pytest.raises(arrayhost.HostGoneError):
        arrayhost.connect()
    with child(source, timeout=40) as first, child(source, timeout=40) as second:
        for one in (first, second):
            one.expect("ready")
        for one in (first, second):  # both at once
            one.send()
        pids = {one.expect("pid") for one in (first, second)}
        assert len(pids) == 1, "two hosts"
        for one in (first, second):
            one.send()
    manager = arrayhost.connect()
    assert len(manager) == 2
    assert str(manager.statistics().pid) in pids
    run("stop")
    assert "hosts arrays" in (place / "arrayhost" / "host.log").read_text()
    assert not answers()


def test_a_pipe_that_closes_early_is_no_error(serve: Serve) -> None:
    serve()
    manager = arrayhost.connect()
    for number in range(300):
        manager[f"a{number}"] = [number]
    ls = subprocess.Popen(
        [sys.executable, "-m", "arrayhost", "ls", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert ls.stdout is not None
    assert ls.stderr is not None
    with ls.stdout as out, ls.stderr as err:
        out.read(10)
        out.close()
        assert err.read() == b""
    assert ls.wait(20) in (0, 1)
