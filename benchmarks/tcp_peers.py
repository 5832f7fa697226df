"""The other ends of the TCP row: a bare sender, an Arrow Flight server. For workers, and without arrayhost."""

from __future__ import annotations

import socket
import threading
from typing import Any

import numpy as np

_kept: list[Any] = []


def start_bare(elements: int) -> int:
    """Send an array of ones for each byte that comes on a connection; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    values = memoryview(np.ones(elements).view(np.uint8).data)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connection.recv(1):
            connection.sendall(values)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    _kept.extend([listener, thread])
    return int(listener.getsockname()[1])


def start_flight(elements: int) -> int:
    """Serve an array of ones with Arrow Flight; return the port."""
    import pyarrow as pa
    from pyarrow import flight

    table = pa.table({"x": np.ones(elements)})

    class Server(flight.FlightServerBase):  # type: ignore[misc,unused-ignore]  # pyarrow ships no annotations
        def do_get(self, context: Any, ticket: Any) -> Any:
            """Send the whole table."""
            return flight.RecordBatchStream(table)

    server = Server("grpc://127.0.0.1:0")
    _kept.append(server)
    return int(server.port)
