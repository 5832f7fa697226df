"""``arrayhost stop``: end a host."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import click

from arrayhost.cli.options import Failure, connected, host_options, json_option
from arrayhost.cli.output import print_json
from arrayhost.core.addresses import TCP_PREFIX
from arrayhost.errors import HostGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.manager import ArrayManager

_LOOK = 0.02


@click.command()
@host_options
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for its end.")
@json_option
def stop(address: str | None, timeout: float, json_: bool) -> int:
    """Ask the host to end, and wait until it has; it finishes what runs first.

    Arrays that are kept in memory alone are gone with it.
    """
    manager = connected(address)
    pid = manager.statistics().pid
    deadline = time.monotonic() + timeout
    if str(manager.address).startswith(TCP_PREFIX):
        manager.stop_host()
        _wait(lambda: not _answers(manager), deadline, pid)
    else:
        process = os.pidfd_open(pid)
        try:
            manager.stop_host()
            _wait(lambda: _has_ended(process), deadline, pid)
        finally:
            os.close(process)
    if json_:
        print_json({"stopped": pid, "address": manager.address})
    return 0


def _wait(is_over: Callable[[], bool], deadline: float, pid: int) -> None:
    while not is_over():
        if time.monotonic() > deadline:
            raise Failure(f"process {pid} still finishes requests; wait longer, or end it with: kill {pid}")
        time.sleep(_LOOK)


def _answers(manager: ArrayManager) -> bool:
    """Whether a host on another machine, whose process cannot be watched, still takes requests."""
    try:
        manager.statistics()
    except HostGoneError:
        return False
    return True


def _has_ended(process: int) -> bool:
    return bool(select.select([process], [], [], 0)[0])
