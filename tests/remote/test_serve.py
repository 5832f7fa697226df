"""``arrayhost serve --listen``."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arrayhost import connect
from arrayhost.cli.main import BAD_USAGE, FAILED, main
from arrayhost.client.finding import forget_sessions
from tests.remote.conftest import KEY, Certificates
from tests.support import wait_until


@contextlib.contextmanager
def served(folder: Path, certificates: Certificates) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """Run ``arrayhost serve`` on a port; gives its address, the file with its key, and the process."""
    key_file, log = folder / "key", folder / "log"
    key_file.write_bytes(KEY + b"\n")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "arrayhost", "serve", "--address", f"unix:{folder}/host", "--listen",
             "tcp://127.0.0.1:0", "--key-file", str(key_file), "--tls", *certificates.host],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: "tcp://127.0.0.1:" in log.read_text())
        address = next(word for word in log.read_text().split() if word.startswith("tcp://127.0.0.1:"))
        yield address, key_file, process
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_serve_listens_on_tcp(tmp_path: Path, certificates: Certificates) -> None:
    with served(tmp_path, certificates) as (address, *_):
        manager = connect(address, KEY, tls=certificates.authority)
        manager["x"] = np.arange(4)
        assert manager["x"].sum() == 6
        manager._engine.session.close()  # type: ignore[union-attr]  # a host's


def test_bad_usage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--address", f"unix:{tmp_path}/host", "--listen", "tcp://127.0.0.1:0"]) == BAD_USAGE
    assert "--key-file" in capfd.readouterr().err
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    words = ["serve", "--address", f"unix:{tmp_path}/host", "--key-file", str(key_file), "--listen"]
    assert main([*words, "tcp://0.0.0.0:0"]) == FAILED
    assert "can be reached from other machines" in capfd.readouterr().err


def test_the_shell_over_tcp(tmp_path: Path, certificates: Certificates, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.arange(100_000.0))
    with contextlib.ExitStack() as stack:
        stack.callback(forget_sessions)
        address, key_file, process = stack.enter_context(served(tmp_path, certificates))
        assert main(["ls", "--address", address, "--tls-ca", certificates.authority]) == FAILED
        assert "key" in capfd.readouterr().err
        there = ["--address", address, "--tls-ca", certificates.authority, "--key-file", str(key_file)]
        assert main(["put", str(tmp_path / "x.npy"), *there]) == 0
        assert main(["show", "x", *there]) == 0
        assert "99999" in capfd.readouterr().out
        assert main(["cp", "x", "y", *there]) == 0
        assert main(["get", "y", str(tmp_path / "y.npy"), *there]) == 0
        assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "x.npy").read_bytes()
        assert main(["rm", "x", *there]) == 0
        assert main(["ls", "--json", *there]) == 0
        assert [one["names"] for one in json.loads(capfd.readouterr().out)] == [["y"]]
        assert main(["stop", *there]) == 0
        assert process.wait(20) == 0
