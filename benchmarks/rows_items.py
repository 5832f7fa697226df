"""One element: read it, read the shape, write it."""

from __future__ import annotations

import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import Budget, Case, Measurement, Scale, interleave, statement
from benchmarks.hosts import Arrays, both
from benchmarks.workers import SPAWN, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ELEMENTS = 1000
READS = 5000
"""Executions per sample of what takes no round trip."""
TRIPS = 500
"""Executions per sample of what does."""
MESSAGE = bytes(64)


def measure_getitem(scale: Scale) -> Measurement:
    """Read ``a[i]``."""
    with both() as (ours, stdlib):
        a, p, x = ours.ones((ELEMENTS,)), stdlib.ones((ELEMENTS,)), np.ones((ELEMENTS,))
        contenders = {
            "ours": statement("a[i]", READS, a=a, i=7),
            "S": statement("p._callmethod('__getitem__', (i,))", TRIPS, p=p, i=7),
            "N": statement("x[i]", READS, x=x, i=7),
        }
        return Measurement(interleave(contenders, scale.fast))


def measure_shape(scale: Scale) -> Measurement:
    """Read ``a.shape``."""
    with both() as (ours, stdlib):
        a, p, x = ours.ones((ELEMENTS,)), stdlib.ones_with_attributes((ELEMENTS,)), np.ones((ELEMENTS,))
        contenders = {
            "ours": statement("a.shape", READS, a=a),
            "S": statement("p._callmethod('__getattribute__', ('shape',))", TRIPS, p=p),
            "N": statement("x.shape", READS, x=x),
        }
        return Measurement(interleave(contenders, scale.fast))


def measure_setitem(scale: Scale) -> Measurement:
    """Write ``a[i] = v``, with a bare ping-pong on a Unix socket beside it."""
    with both() as (ours, stdlib), ping_pong() as trip:
        a, p, x = ours.ones((ELEMENTS,)), stdlib.ones((ELEMENTS,)), np.ones((ELEMENTS,))
        contenders = {
            "ours": statement("a[i] = v", TRIPS, a=a, i=7, v=2.0),
            "S": statement("p._callmethod('__setitem__', (i, v))", TRIPS, p=p, i=7, v=2.0),
            "N": statement("x[i] = v", READS, x=x, i=7, v=2.0),
            "ping-pong": trip,
        }
        measurement = Measurement(interleave(contenders, scale.fast))
        if not a[7] == p._callmethod("__getitem__", (7,)) == 2.0:
            raise ValueError("the element written was not read back")
        return measurement


def measure_directory(scale: Scale) -> Measurement:
    """Write ``a[i] = v`` to a named array of a host with a directory, and (N) of one without."""
    with tempfile.TemporaryDirectory() as folder, Arrays(ctx=SPAWN, directory=folder) as stored, both() as (ours, _):
        contenders = {}
        for name, manager in (("ours", stored), ("N", ours)):
            manager["a"] = np.ones((ELEMENTS,))
            contenders[name] = statement("a[i] = v", TRIPS, a=manager["a"], i=7, v=2.0)
        return Measurement(interleave(contenders, scale.fast))


@contextmanager
def ping_pong() -> Iterator[Callable[[], float]]:
    """Yield a sampler: seconds per round trip of 64 bytes to another Python process over a Unix socket."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener, Worker() as worker:
        path = str(Path(directory) / "echo")
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        worker.send(echo, path)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(None)
            yield statement(
                "send(message); receive(64)", TRIPS, send=connection.sendall, receive=connection.recv, message=MESSAGE
            )


def echo(path: str) -> None:
    """Send back what comes in until the peer closes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        while message := connection.recv(64):
            connection.sendall(message)


CASES = (
    Case("getitem", "a[i]", measure_getitem, Budget("S/ours", 30, "times faster than S", aim=50)),
    Case("shape", "a.shape", measure_shape, Budget("S/ours", 30, "times faster than S", aim=50)),
    Case("setitem", "a[i] = x", measure_setitem, Budget("ours/S", 0.8, "S", aim=0.5)),
)
INFORMATIVE = (Case("setitem-directory", "a[i] = x in a directory (N: without one)", measure_directory, None),)
