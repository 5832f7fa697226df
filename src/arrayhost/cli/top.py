"""``arrayhost top``: a host at work, renewed every second."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from arrayhost.cli.options import connected, host_options, json_option
from arrayhost.cli.output import brief, console, count, print_json, shape, table
from arrayhost.core.records import to_plain
from arrayhost.errors import HostGoneError, format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from arrayhost.core.records import ArrayRecord, ClientRecord, HostRecord, LockRecord
    from arrayhost.manager import ArrayManager

_ARRAYS = ("ARRAY", "SHAPE", "SIZE", "HOLDERS", "WRITES/S", "LOCK", "WAITING")
# A lock with its owner has to fit beside the rest into 80 columns.
_LOCKED = {"exclusive": "write", "shared": "read"}
_CLIENTS = ("PID", "USER", "ARRAYS", "REQUESTS", "REQUESTS/S", "PROGRAM")


@click.command()
@host_options
@click.option(
    "--interval", type=click.FloatRange(min=0.05), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--once", is_flag=True, help="Look twice, print what happened between, and end.")
@json_option
def top(address: str | None, interval: float, once: bool, json_: bool) -> int:
    """Watch a host: its arrays, memory, holders, locks and clients, and what happens each second.

    Writes are counted for each array, wherever they are made. Of reads only those that the host serves can be counted,
    as requests: reads of mapped memory pass it by. With --json it prints one document for each look, one a line unless
    --once is given. Ctrl-C ends it.
    """
    manager = connected(address)
    looks = _Looks(manager)
    if once:
        time.sleep(interval)
        look = looks.next()
        print_json(look.plain()) if json_ else console().print(look.render())
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            _watch(looks, interval, json_=json_)
        except HostGoneError:
            click.echo("the host has ended", err=True)
    return 0


def _watch(looks: _Looks, interval: float, *, json_: bool) -> None:
    if json_:
        while True:
            time.sleep(interval)
            click.echo(json.dumps(looks.next().plain(), ensure_ascii=False))
    with Live(looks.next().render(), console=console(), auto_refresh=False, screen=console().is_terminal) as live:
        while True:
            time.sleep(interval)
            live.update(looks.next().render(), refresh=True)


class _Looks:
    """Successive looks at one host."""

    def __init__(self, manager: ArrayManager) -> None:
        self._manager = manager
        self._before = manager.inspect()
        self._at = time.monotonic()

    def next(self) -> _Look:
        """Look, and compare with the look before."""
        record, now = self._manager.inspect(), time.monotonic()
        look = _Look(record, self._before, now - self._at)
        self._before, self._at = record, now
        return look


class _Look:
    """What a host has, and what happened since the look before."""

    def __init__(self, record: HostRecord, before: HostRecord, seconds: float) -> None:
        self._record = record
        self._seconds = max(seconds, 1e-6)
        self._versions = {one.statistics.generation: one.statistics.version for one in before.arrays}
        self._requests = {(one.pid, one.connected): one.n_requests for one in before.clients}
        self._all_requests = before.host.n_requests

    def _writes(self, record: ArrayRecord) -> float:
        row = record.statistics
        return (row.version - self._versions.get(row.generation, row.version)) / 2 / self._seconds

    def _requests_of(self, client: ClientRecord) -> float:
        return (client.n_requests - self._requests.get((client.pid, client.connected), 0)) / self._seconds

    def _requests_in_all(self) -> float:
        return (self._record.host.n_requests - self._all_requests) / self._seconds

    def plain(self) -> dict[str, Any]:
        """Turn the look into plain values: the host's records, with rates."""
        plain = to_plain(self._record)
        plain["host"]["requests_per_second"] = self._requests_in_all()
        for one, record in zip(plain["arrays"], self._record.arrays, strict=True):
            one["writes_per_second"] = self._writes(record)
        for one, client in zip(plain["clients"], self._record.clients, strict=True):
            one["requests_per_second"] = self._requests_of(client)
        return plain

    def render(self) -> RenderableType:
        """Draw the look."""
        host = self._record.host
        bound = f" of {format_bytes(host.max_bytes)}" if host.max_bytes else ""
        heading = (
            f"host {host.pid}, up {_duration(time.time() - host.started)}: {count(host.n_arrays, 'array')}, "
            f"{count(host.n_objects, 'object')}, {format_bytes(host.n_bytes)}{bound}; "
            f"{count(len(self._record.clients), 'client')}, {self._requests_in_all():.0f} requests/s"
        )
        arrays = sorted(
            self._record.arrays, key=lambda one: (-self._writes(one), not one.names, -one.nbytes, one.names)
        )
        clients = sorted(self._record.clients, key=lambda one: (-self._requests_of(one), one.pid))
        return Group(
            Text(heading, style="bold"),
            "",
            table(
                _ARRAYS,
                map(self._array, arrays),
                right=("SIZE", "HOLDERS", "WRITES/S", "WAITING"),
                folded=("ARRAY",),
            ),
            "",
            table(
                _CLIENTS,
                map(self._client, clients),
                right=("PID", "ARRAYS", "REQUESTS", "REQUESTS/S"),
                cut=("PROGRAM",),
            ),
        )

    def _array(self, record: ArrayRecord) -> tuple[str, ...]:
        lock = record.lock
        return (
            ", ".join(record.names) or "-",
            shape(record.shape),
            format_bytes(record.nbytes),
            str(len(record.holders)),
            f"{self._writes(record):.1f}",
            "torn"
            if record.statistics.torn
            else ""
            if lock.mode == "free"
            else f"{_LOCKED[lock.mode]} {lock.owner_pid}",
            str(len(lock.waiters) or ""),
        )

    def _client(self, client: ClientRecord) -> tuple[str, ...]:
        return (
            str(client.pid),
            client.user,
            str(client.n_arrays),
            str(client.n_requests),
            f"{self._requests_of(client):.1f}",
            brief(client.program),
        )


def _locked(lock: LockRecord) -> str:
    return "" if lock.mode == "free" else f"{_LOCKED[lock.mode]} {lock.owner_pid}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
