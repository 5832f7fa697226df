"""Starting, watching and ending the processes that tests use.

Everything here is built for a test that goes wrong: output goes to files (a pipe held open by a forgotten grandchild
would block its reader for ever), and a process that does not end is made to print its stacks before it is killed.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class ProcessInfo:
    """One process as /proc tells it; `start` (clock ticks since boot) tells it from a later one of the same pid."""

    pid: int
    start: int
    parent: int
    state: str

    @property
    def is_zombie(self) -> bool:
        return self.state in "ZX"

    def __str__(self) -> str:
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except OSError:
            command = "(gone)"
        return f"process {self.pid}, state {self.state}, child of {self.parent}: {command or '(no command line)'}"


def process_info(pid: int | str) -> ProcessInfo | None:
    """What /proc says of `pid`, or None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return None
    # The command name stands in parentheses and may hold anything, parentheses included: split behind the last one.
    fields = text.rpartition(b")")[2].split()
    return ProcessInfo(pid=int(pid), start=int(fields[19]), parent=int(fields[1]), state=fields[0].decode())


def is_running(pid: int) -> bool:
    """True unless `pid` is gone or a zombie.

    Do not ask ``os.kill(pid, 0)`` instead: the test process adopts orphans (see conftest.py), so one that died stays a
    zombie until the census reaps it.
    """
    info = process_info(pid)
    return info is not None and not info.is_zombie


def descendants(root: int | None = None) -> list[ProcessInfo]:
    """Every process below `root` (default: this one), zombies included, parents before children."""
    # /proc/<pid>/task/<tid>/children would be quicker, but it may leave out processes while a sibling exits (proc(5)).
    children: dict[int, list[ProcessInfo]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (info := process_info(name)) is not None:
            children.setdefault(info.parent, []).append(info)
    found: list[ProcessInfo] = []
    queue = [os.getpid() if root is None else root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [info.pid for info in below]
    return found


def abort_all(pids: Iterable[int], patience: float = 2.0) -> None:
    """End processes: SIGABRT, at which those with faulthandler print their stacks, then SIGKILL for who remains."""
    pids = list(pids)
    # All are frozen first and let go one by one: two that print at once would mix their lines beyond reading, and one
    # whose peer has just died would move on from the place that is wanted.
    _signal_all(pids, signal.SIGSTOP)
    deadline = time.monotonic() + patience
    for pid in pids:
        _signal_all([pid], signal.SIGABRT)
        _signal_all([pid], signal.SIGCONT)
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.005)
    _signal_all(filter(is_running, pids), signal.SIGKILL)


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _abort_tree(process: subprocess.Popen[bytes]) -> None:
    # Listed before the first dies: orphans are no longer below `process`.
    abort_all([process.pid, *(info.pid for info in descendants(process.pid))])
    process.wait()


@contextlib.contextmanager
def _script(source: str) -> Iterator[Path]:
    """`source` as a file: spawn and forkserver import the main script again, so ``python -c`` will not do."""
    with tempfile.TemporaryDirectory(prefix="arrayhost-test-") as folder:
        path = Path(folder) / "script.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        yield path


def _start(
    script: Path,
    args: tuple[object, ...],
    env: Mapping[str, str] | None,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: IO[bytes],
) -> subprocess.Popen[bytes]:
    # PYTHONFAULTHANDLER: stacks on SIGABRT and SIGSEGV, in the script's own children too. -u: a line is seen once
    # printed.
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
    command = [sys.executable, str(script), *map(str, args)]
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)


def _text(file: IO[bytes]) -> str:
    # pread, because the child shares the file's position.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


def _report(problem: str, *, stdout: str | None = None, stderr: str) -> str:
    parts = [problem]
    if stdout is not None:
        parts += ["--- its stdout:", stdout.rstrip() or "(nothing)"]
    parts += ["--- its stderr:", stderr.rstrip() or "(nothing)"]
    return "\n".join(parts)


def run_python(
    source: str, *args: object, timeout: float = 30.0, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `source` as a Python script in a process of its own and return how it ended, with its output.

    Parameters
    ----------
    source : str
        The script; common indentation is removed. It needs an ``if __name__ == "__main__"`` if it uses spawn or
        forkserver.
    *args
        Its ``sys.argv[1:]``, each passed through `str`.
    timeout : float
        Seconds; then it and every process below it print their stacks and are killed, and AssertionError shows all
        that.
    check : bool
        Raise AssertionError, with the output, unless the exit status is 0.
    env : mapping, optional
        Added to this process's environment.

    Notes
    -----
    Returns when the script itself has ended. Processes that it leaves behind are the census's business.
    """
    with _script(source) as script, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = _start(script, args, env, subprocess.DEVNULL, stdout, stderr)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            _abort_tree(process)
            problem = f"the script was still running after {timeout:g} s"
            raise AssertionError(_report(problem, stdout=_text(stdout), stderr=_text(stderr))) from None
        finally:
            if process.returncode is None:  # interrupted: Ctrl-C, or the watchdog
                _abort_tree(process)
        done = subprocess.CompletedProcess(process.args, process.returncode, _text(stdout), _text(stderr))
    if check and done.returncode != 0:
        raise AssertionError(_report(f"exit status {done.returncode}", stdout=done.stdout, stderr=done.stderr))
    return done


class Child:
    """A helper process that is told what to do, and answers, in lines. Made by `child`."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes], timeout: float) -> None:
        self._process = process
        self._stderr = stderr
        self._timeout = timeout
        self._unread = bytearray()
        self._is_end_expected = False
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> str:
        """All it has written to stderr so far."""
        return _text(self._stderr)

    def send(self, line: str = "") -> None:
        """Write one line to its stdin."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure(f"could not send {line!r}: the helper has closed its stdin") from None

    def read_line(self, timeout: float | None = None) -> str:
        """The next line of its stdout, without the line end."""
        assert self._process.stdout is not None
        timeout = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    _abort_tree(self._process)  # for the stacks in the message
                    raise self._failure(f"no line from the helper in {timeout:g} s")
                if not (data := os.read(self._process.stdout.fileno(), 65536)):
                    self._process.wait(self._timeout)
                    status = self._process.returncode
                    raise self._failure(f"the helper ended with status {status} when a line was expected")
                self._unread += data
        line, _, rest = bytes(self._unread).partition(b"\n")
        self._unread[:] = rest
        return line.decode()

    def expect(self, prefix: str, timeout: float | None = None) -> str:
        """Read the next line, which must start with `prefix`, and return the rest of it, stripped."""
        line = self.read_line(timeout)
        if not line.startswith(prefix):
            raise self._failure(f"expected a line starting with {prefix!r}, got {line!r}")
        return line.removeprefix(prefix).strip()

    def send_signal(self, number: int) -> None:
        """Send a signal, to this process alone, and do not wait. It may end by it."""
        self._is_end_expected = True
        os.kill(self.pid, number)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal that ends it, to this process alone, and wait until it is gone."""
        self.send_signal(number)
        return self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its status, which may then be any; its stdin stays open."""
        self._is_end_expected = True
        timeout = self._timeout if timeout is None else timeout
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            _abort_tree(self._process)
            raise self._failure(f"the helper was still running after {timeout:g} s") from None

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _finish(self) -> None:
        self._close_stdin()
        expected = self._is_end_expected
        status = self.wait()
        if status != 0 and not expected:
            raise self._failure(f"the helper ended with status {status}")

    def _destroy(self) -> None:
        self._close_stdin()
        if self._process.poll() is None:
            _abort_tree(self._process)
            print(self.stderr, file=sys.stderr)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _failure(self, problem: str) -> AssertionError:
        return AssertionError(_report(problem, stderr=self.stderr))


@contextlib.contextmanager
def child(source: str, *args: object, timeout: float = 15.0, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `source` as a script in a helper process, and talk to it in lines: it prints, and reads its stdin.

    At the end of the block its stdin is closed and it must end within `timeout` seconds (the default for each wait,
    too), with status 0 unless the test signalled it or asked for the status. `source` and `args` are those of
    `run_python`::

        with child("print('ready'); print('got', input())") as helper:
            helper.expect("ready")
            helper.send("hello")
            assert helper.expect("got") == "hello"
    """
    with _script(source) as script, tempfile.TemporaryFile() as stderr:
        helper = Child(_start(script, args, env, subprocess.PIPE, subprocess.PIPE, stderr), stderr, timeout)
        try:
            yield helper
            helper._finish()
        finally:
            helper._destroy()
