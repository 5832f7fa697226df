"""``arrayhost stop``: end a host."""

from __future__ import annotations

import os
import time

import click

from arrayhost.cli.options import Failure, address_option, connected, json_option
from arrayhost.cli.output import print_json

_LOOK = 0.02


@click.command()
@address_option
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for its end.")
@json_option
def stop(address: str | None, timeout: float, json_: bool) -> int:
    """Ask the host to end, and wait until it has; it finishes what runs first.

    Arrays that are kept in memory alone are gone with it.
    """
    manager = connected(address)
    pid = manager.statistics().pid
    process = os.pidfd_open(pid)
    try:
        manager.stop_host()
        _wait(process, pid, timeout)
    finally:
        os.close(process)
    if json_:
        print_json({"stopped": pid, "address": manager.address})
    return 0


def _wait(process: int, pid: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not _has_ended(process):
        if time.monotonic() > deadline:
            raise Failure(f"process {pid} still finishes requests; wait longer, or end it with: kill {pid}")
        time.sleep(_LOOK)


def _has_ended(process: int) -> bool:
    import select

    return bool(select.select([process], [], [], 0)[0])
