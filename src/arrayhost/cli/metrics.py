"""Metrics of a host for Prometheus, on the loopback interface alone."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from arrayhost.cli.options import Failure, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrayhost.host.server import Server

__all__ = ["serving_metrics"]

log = logging.getLogger(__name__)
_LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def serving_metrics(server: Server, port: int) -> Iterator[int]:
    """Serve a host's metrics at ``http://127.0.0.1:PORT/metrics``; yield the port, chosen by the system for 0."""
    try:
        import prometheus_client
    except ModuleNotFoundError as error:
        raise missing_extra("--metrics", "prometheus-client", "metrics") from error
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(server))
    prometheus_client.ProcessCollector(registry=registry)
    try:
        http, thread = prometheus_client.start_http_server(port, _LOOPBACK, registry)
    except OSError as error:
        raise Failure(f"cannot serve metrics on {_LOOPBACK}:{port}: {error.strerror}; choose another port") from error
    log.info("metrics at http://%s:%d/metrics", _LOOPBACK, http.server_port)
    try:
        yield http.server_port
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Collector:
    """Asks the host when it is asked itself, so that nothing is counted in between."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Any]:
        """Yield each metric with its present value."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        record = self._server.record()
        host = record.host
        for name, value, help_ in (
            ("arrays", host.n_arrays, "Hosted arrays"),
            ("objects", host.n_objects, "Hosted objects"),
            ("names", host.n_names, "Names of arrays"),
            ("memory_bytes", host.n_bytes, "Memory of all arrays"),
            ("memory_limit_bytes", host.max_bytes or float("inf"), "Bound on that memory"),
            ("clients", host.n_sessions, "Connected processes"),
            ("connections", host.n_connections, "Their threads that make requests"),
            ("leases", host.n_leases, "Leases of arrays and objects"),
            ("torn_arrays", sum(one.statistics.torn for one in record.arrays), "Arrays whose writer died"),
            ("lock_waiters", sum(len(one.lock.waiters) for one in record.arrays), "Known waiters for locks"),
            ("start_time_seconds", host.started, "When the host started, since 1970"),
        ):
            yield GaugeMetricFamily(f"arrayhost_{name}", help_, value=value)
        yield CounterMetricFamily("arrayhost_requests", "Requests answered", value=host.n_requests)
        sizes = GaugeMetricFamily("arrayhost_array_bytes", "Size of a named array", labels=["name"])
        writes = CounterMetricFamily("arrayhost_array_writes", "Completed writes to a named array", labels=["name"])
        for one in record.arrays:
            for name in one.names:
                sizes.add_metric([name], one.nbytes)
                writes.add_metric([name], one.statistics.version // 2)
        yield sizes
        yield writes
