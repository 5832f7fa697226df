"""The standing host: where a user's own host listens, and how a program starts one that outlives it.

There is one for each user, at ``$XDG_RUNTIME_DIR/arrayhost/host``. Without that variable it is in
``/run/user/UID/arrayhost``, where systemd has such folders, else in ``arrayhost-UID`` in the folder for temporary
files. The environment's ``ARRAYHOST_ADDRESS`` names another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arrayhost.errors import HostGoneError
from arrayhost.wire.addresses import LOCAL_PREFIX, socket_name

__all__ = ["default_address", "log_path", "start_detached"]

ADDRESS_VARIABLE = "ARRAYHOST_ADDRESS"
_SOCKET = "host"
_START_SECONDS = 60.0
# The child of this fork is nobody's: its parent, the process that is waited for below, ends at once. It runs before
# anything has made a thread.
_BEGINNING = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
sys.path.append(sys.argv[2])
from arrayhost.serving import serve_detached
serve_detached(sys.argv[1])
"""


def runtime_folder() -> Path:
    """The folder of this user's standing host; it may not exist yet."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if folder and os.path.isabs(folder):
        return Path(folder) / "arrayhost"
    uid = os.geteuid()
    system = Path(f"/run/user/{uid}")
    with contextlib.suppress(OSError):
        if system.stat().st_uid == uid:
            return system / "arrayhost"
    return Path(tempfile.gettempdir()) / f"arrayhost-{uid}"


def default_address() -> str:
    """The address of this user's standing host."""
    return os.environ.get(ADDRESS_VARIABLE) or f"{LOCAL_PREFIX}{runtime_folder() / _SOCKET}"


def log_path(address: str) -> str:
    """Where a detached host at an address writes what it has to say; nowhere for an address that is no file."""
    name = socket_name(address)
    return os.devnull if name[0] == "\0" else f"{name}.log"


def start_detached(address: str) -> None:
    """Start a host that lives on when this process ends; return when one answers at the address.

    Raises
    ------
    HostGoneError
        It ended while it started; the text ends with its last words.

    Notes
    -----
    Of several processes that do this at once, one has its host stay and the others find that.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        log = log_path(address)
        if log != os.devnull:
            os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
        source = str(Path(__file__).resolve().parents[1])
        about = json.dumps({"address": address, "ready_fd": writer})
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _BEGINNING, about, source],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", pass_fds=[writer],
            )  # fmt: skip
        os.close(writer)
        writer = -1
        process.wait()
        answer = _read_line(reader, time.monotonic() + _START_SECONDS)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if answer != "ready":
        raise HostGoneError(f"the host that was to listen on {address} ended: {answer or 'see ' + log}")


def _read_line(fd: int, deadline: float) -> str:
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], max(deadline - time.monotonic(), 0.0))
        part = os.read(fd, 4096) if ready else b""
        if not part:
            break
        line += part
    return line.decode(errors="replace").strip()
