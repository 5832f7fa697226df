"""A large array fetched over loopback TCP; N is a bare ``recv_into`` of the same bytes."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import numpy as np

from arrayhost import connect
from benchmarks import tcp_peers
from benchmarks.harness import Budget, Case, Measurement, Scale, interleave, once
from benchmarks.hosts import Arrays
from benchmarks.workers import SPAWN, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEY = b"a benchmark's key"


def measure_fetch(scale: Scale) -> Measurement:
    """Fetch into an ndarray of this process; the sender is another process each time."""
    with (
        Arrays(authkey=_KEY, ctx=SPAWN, listen="tcp://127.0.0.1:0") as manager,
        Worker() as bare_sender,
        bare(bare_sender.call(tcp_peers.start_bare, scale.elements), scale.nbytes) as receive,
        contextlib.ExitStack() as stack,
    ):
        a = connect(manager.network_addresses[0], _KEY).ones((scale.elements,))
        contenders = {"ours": once(a.copy), "N": once(receive)}
        notes = []
        try:
            contenders["Arrow Flight"] = once(stack.enter_context(flight(scale.elements)))
        except ImportError:
            notes.append("pyarrow is not installed: no row beside")
        return Measurement(interleave(contenders, scale.slow), notes=notes)


@contextlib.contextmanager
def bare(port: int, n_bytes: int) -> Iterator[Callable[[], object]]:
    """Receive into a new array."""
    with socket.create_connection(("127.0.0.1", port)) as sock:

        def receive() -> object:
            sock.sendall(b"x")
            target = np.empty(n_bytes, np.uint8)
            rest = memoryview(target.data)
            while rest:
                rest = rest[sock.recv_into(rest) :]
            return target

        yield receive


@contextlib.contextmanager
def flight(elements: int) -> Iterator[Callable[[], object]]:
    """Fetch with Arrow Flight, as NumPy arrays."""
    from pyarrow import flight

    with Worker() as worker, flight.connect(f"grpc://127.0.0.1:{worker.call(tcp_peers.start_flight, elements)}") as far:

        def fetch() -> object:
            return far.do_get(flight.Ticket(b"x")).read_all()["x"].to_numpy()

        yield fetch


CASES = (Case("tcp", "a large array fetched over loopback TCP", measure_fetch, Budget("ours/N", 1.5, "N")),)
