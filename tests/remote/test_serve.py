"""``arrayhost serve --listen``."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arrayhost import connect
from arrayhost.cli.main import BAD_USAGE, FAILED, main
from tests.remote.conftest import KEY, Certificates
from tests.support import wait_until


def test_serve_listens_on_tcp(tmp_path: Path, certificates: Certificates) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY + b"\n")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "arrayhost", "serve", "--address", f"unix:{tmp_path}/host", "--listen",
             "tcp://127.0.0.1:0", "--key-file", str(key_file), "--tls", *certificates.host],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: "tcp://127.0.0.1:" in log.read_text())
        address = next(word for word in log.read_text().split() if word.startswith("tcp://127.0.0.1:"))
        manager = connect(address, KEY, tls=certificates.authority)
        manager["x"] = np.arange(4)
        assert manager["x"].sum() == 6
        manager._engine.session.close()  # type: ignore[union-attr]
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_bad_usage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--address", f"unix:{tmp_path}/host", "--listen", "tcp://127.0.0.1:0"]) == BAD_USAGE
    assert "--key-file" in capfd.readouterr().err
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    words = ["serve", "--address", f"unix:{tmp_path}/host", "--key-file", str(key_file), "--listen"]
    assert main([*words, "tcp://0.0.0.0:0"]) == FAILED
    assert "can be reached from other machines" in capfd.readouterr().err
