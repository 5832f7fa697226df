"""The demo as a user runs it: exit status, what it prints, and that nothing is left of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost.cli.demo import command
from arrayhost.cli.demo.aftermath import aftermath
from arrayhost.cli.demo.measuring import ShortfallError, refusal, same
from arrayhost.cli.demo.source import Source, ones_source
from arrayhost.cli.demo.steps import story
from arrayhost.cli.demo.story import Row
from arrayhost.cli.demo.table import in_seconds, in_times
from arrayhost.cli.main import main
from tests.support import wait_until

TIMEOUT = 50.0
FILES = {
    "bool-0d": np.array(True),
    "int8-matrix": (np.arange(60) % 128).astype(np.int8).reshape(12, 5),
    "float32-fortran": np.asfortranarray(np.random.default_rng(1).random((20, 30, 4), dtype=np.float32)),
    "complex-big-endian-with-nan": np.array([1 + 2j, np.nan, -np.inf], ">c16"),
    "empty": np.empty((0, 3)),
}


@dataclass(frozen=True)
class Outcome:
    """What a finished demo left for its reader."""

    status: int
    stdout: str
    stderr: str


Started = tuple[subprocess.Popen[bytes], Callable[[], Outcome]]


@contextlib.contextmanager
def started(*words: str) -> Iterator[Started]:
    """Start Python in a session, and with a folder for temporary files, of its own; at the end both must be empty."""
    with contextlib.ExitStack() as stack:
        # Not pytest's tmp_path: the name of a Unix socket in there must fit into 107 bytes.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="d-"))
        out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        environment = {**os.environ, "TMPDIR": folder}
        command_line = [sys.executable, *words]
        process = subprocess.Popen(command_line, stdout=out, stderr=err, env=environment, start_new_session=True)

        def outcome() -> Outcome:
            status = process.wait(TIMEOUT)
            for file in (out, err):
                file.seek(0)
            return Outcome(status, out.read().decode(), err.read().decode())

        try:
            yield process, outcome
            wait_until(lambda: not in_session(process.pid), what="the end of every process of the demo")
            assert os.listdir(folder) == []
        finally:
            for pid in in_session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def in_session(session: int) -> list[int]:
    """Running processes of a session."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_in_session(pid, session)]


def _is_in_session(pid: int, session: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and int(fields[3]) == session


def demo(*args: str) -> Outcome:
    with started("-m", "arrayhost", "demo", *args) as (_, outcome):
        return outcome()


def report_of(outcome: Outcome) -> dict[str, Any]:
    """The report of a demo that must have found everything right."""
    report: dict[str, Any] = json.loads(outcome.stdout)
    assert [row for row in report["rows"] if not row["right"]] == []
    assert (outcome.status, outcome.stderr) == (0, "")
    return report


@pytest.mark.slow
def test_ones_beside_the_standard_library() -> None:
    report = report_of(demo("--size", "100000", "--json"))
    assert report["shape"] == [100_000]
    assert len(report["rows"]) == len(story(ones_source(100_000)) + aftermath())
    create, *others = report["rows"]
    assert "matrix transpose with ndim < 2" in create["stdlib_note"]
    assert create["stdlib_seconds"] > 0
    notes = {row["step"]: row["stdlib_note"] for row in others}
    assert notes["a.shape"].startswith("AttributeError")
    assert notes["a[:10]"].startswith("TypeError")


@pytest.mark.slow
def test_the_table_tells_that_all_is_right() -> None:
    with started("-m", "arrayhost.cli.main", "demo", "--size", "2000") as (_, get_outcome):
        outcome = get_outcome()
    assert (outcome.status, outcome.stderr) == (0, ""), outcome.stdout
    assert "results are right" in outcome.stdout
    assert "✗" not in outcome.stdout
    assert "array([1., 1., 1., ..., 1., 1., 1.]" in outcome.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file(name: str, tmp_path: Path) -> None:
    array = FILES[name]
    file = tmp_path / f"{name}.npy"
    np.save(file, array)
    # Once with the standard library beside it is enough to know that files reach it, too.
    report = report_of(demo(str(file), "--json", *(() if name == "int8-matrix" else ("--no-stdlib",))))
    assert (tuple(report["shape"]), np.dtype(report["dtype"])) == (array.shape, array.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", [2, 3, 4], ids="{} processes run".format)
def test_ctrl_c_shuts_everything_down(n_processes: int) -> None:
    with started("-m", "arrayhost", "demo", "--size", "3000000") as (process, get_outcome):
        wait_until(lambda: len(in_session(process.pid)) >= n_processes, what="the demo's processes")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        outcome = get_outcome()
    # Interrupted inside one of the standard library's exec() calls, CPython ends by the signal itself even though the
    # exception was handled; a shell reports 130 for either.
    status = 130 if outcome.status == -signal.SIGINT else outcome.status
    assert Outcome(status, outcome.stdout, outcome.stderr) == Outcome(130, "", "\narrayhost: interrupted\n")


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, str]:
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "whole.npy", np.ones(1_000))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:1_000])
    (tmp_path / "not.npy").write_text("1, 2, 3\n")
    (tmp_path / "nothing.npy").touch()
    np.savez(tmp_path / "archive.npz", a=np.ones(3))
    with (tmp_path / "huge.npy").open("wb") as huge:  # sparse: takes no room
        np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (2**37,)})
        huge.truncate(huge.tell() + 2**40)
    absent = {"missing.npy": str(tmp_path / "missing.npy"), "folder": str(tmp_path)}
    return {file.name: str(file) for file in tmp_path.iterdir()} | absent


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.npy"], "does not exist"),
        (["folder"], "is a directory"),
        (["not.npy"], "is not a .npy file"),
        (["nothing.npy"], "is not a .npy file"),
        (["archive.npz"], "is not a .npy file"),
        (["objects.npy"], "holds Python objects"),
        (["text.npy"], "needs numbers"),
        (["cut.npy"], "is cut short"),
        (["huge.npy"], "does not fit in memory"),
        (["--size", "100000000000000"], "smaller --size"),
        (["--size", "0"], "is not in the range"),
        (["--size", "many"], "is not a valid integer"),
        (["whole.npy", "--size", "10"], "either FILE or --size"),
        (["--sice", "10"], "No such option"),
    ],
    ids=str,
)
def test_bad_usage(
    words: list[str], message: str, bad_files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["demo", *(bad_files.get(word, word) for word in words)])
    printed = capsys.readouterr()
    assert status == 2
    assert message in " ".join(printed.err.split())
    assert printed.out == ""


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    source = f"import sys; sys.modules[{missing!r}] = None; from arrayhost.cli.main import main; sys.exit(main([]))"
    with started("-c", source) as (_, get_outcome):
        outcome = get_outcome()
    told = f"arrayhost: the command line needs {missing}: pip install 'arrayhost[cli]'\n"
    assert outcome == Outcome(2, "", told)


def test_a_wrong_result_is_marked_and_told_by_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tell(source: Source, **_: Any) -> list[Row]:
        return [Row("a.sum()", "3", True, 1e-3, 1e-2, ""), Row("a[:10]", "[0.], NumPy: [1.]", False, 1e-6, None, "")]

    monkeypatch.setattr(command, "tell", tell)
    assert main(["demo", "--size", "10"]) == 1
    printed = capsys.readouterr().out
    assert "✗" in printed
    assert "1 of 2 results are wrong" in printed


def test_a_result_is_right_only_with_type_shape_and_dtype() -> None:
    assert same(np.float64(1), np.float64(1 + 1e-12))
    assert not same(np.float64(1), np.float64(1.001))
    assert not same(np.float32(1), np.float64(1))
    assert not same(np.ones((1, 1)), np.ones(1))
    assert same((np.int64(3), "x"), (np.int64(3), "x"))
    assert not same((3,), (3, 3))
    assert not same(1, True)
    assert same(np.array([np.nan, 1]), np.array([np.nan, 1]))


def test_an_error_is_named_on_one_line() -> None:
    assert refusal(TypeError("no")) == "TypeError: no"
    assert refusal(EOFError()) == "EOFError"
    assert refusal(ShortfallError("kept")) == "kept"
    trace = "\n-----\nTraceback (most recent call last):\n  File\nValueError: the reason\n-----"
    assert refusal(RuntimeError(trace)) == "RuntimeError: ValueError: the reason"


def test_times_are_told_in_three_digits() -> None:
    times = {2.0: "2.00 s", 0.02345: "23.4 ms", 0.1234: "123 ms", 1e-6: "1.00 µs", 3e-10: "0.30 ns", None: "-"}
    assert {seconds: in_seconds(seconds) for seconds in times} == times
    ratios = {31.4: "31 x", 1.04: "1.0 x", 1234.0: "1,234 x", None: ""}
    assert {ratio: in_times(ratio) for ratio in ratios} == ratios
