"""A standing host of the test's own, in a folder of its own, and the command as a user runs it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import arrayhost
from arrayhost.cli.main import main
from arrayhost.client.finding import forget_sessions
from tests.support import wait_until

TIMEOUT = 40.0
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An XDG_RUNTIME_DIR for this test; short, because a socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ah-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.delenv("ARRAYHOST_ADDRESS", raising=False)
        yield Path(folder)


@pytest.fixture
def run(place: Path) -> Run:
    """Run ``arrayhost`` with these words; check its status, and that errors are one line without a traceback."""

    def run(*words: object, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "arrayhost", *map(str, words)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False, **options,
        )  # fmt: skip
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert len(done.stderr.splitlines()) == (status != 0), done.stderr
        if status:
            assert done.stderr.startswith("arrayhost: ")
        return done

    return run


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``arrayhost`` with words that fail, in this process; return its one line on stderr."""

    def refused(*words: object, status: int = 1) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == status, words
        line = capsys.readouterr().err
        assert line.startswith("arrayhost: "), line
        assert line.count("\n") == 1, line
        return line

    return refused


@pytest.fixture
def serve(place: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``arrayhost serve`` with these words, and wait until it answers; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def serve(*words: object, env: dict[str, str] | None = None, cwd: Any = None) -> subprocess.Popen[bytes]:
        with open(place / "serve.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "arrayhost", "serve", *map(str, words)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}, cwd=cwd,
            )  # fmt: skip
        started.append(process)
        wait_until(lambda: answers() or process.poll() is not None, timeout=TIMEOUT, what="the host")
        return process

    yield serve
    for process in started:
        process.kill()
        process.wait(TIMEOUT)
    forget_sessions()


def answers() -> bool:
    try:
        arrayhost.connect()
    except arrayhost.HostGoneError:
        return False
    return True


def log_of(place: Path) -> str:
    return (place / "serve.log").read_text()


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)
