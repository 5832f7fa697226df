"""The way to a cluster: this process's Dask client, calls that end in time, and errors that say what is wrong."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from distributed import Client, Security, get_worker, rejoin, secede, wait
from distributed.comm.core import CommClosedError
from distributed.worker import thread_state  # type: ignore[attr-defined]  # defined elsewhere, and set there

from arrayhost.core.addresses import TCP_PREFIX, parse_tcp
from arrayhost.engines.dask.scheduler import CataloguePlugin
from arrayhost.errors import ClusterTimeoutError, HostGoneError, ReadOnlyError
from arrayhost.wire.hello import READ_ONLY, READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Future

    from arrayhost.engines.dask.addresses import ClusterAddress

__all__ = ["ClusterLink", "close_link", "link_for"]

_CONNECT_SECONDS = 10.0
_REQUEST_SECONDS = 30.0
_PATIENCE = 0.5  # seconds between two looks at whether a computation can go on at all


class ClusterLink:
    """The way of this process to one cluster.

    Parameters
    ----------
    address : ClusterAddress
    security : Security, optional
        TLS, as Dask takes it.
    mode : {"r+", "r"}
    lock_timeout, handle_grace : float
        Seconds, as for `ArrayManager`.

    Notes
    -----
    Safety: any thread. A forked child makes a client of its own; so does the process after its client was closed.
    Inside a task of the cluster it uses the worker's client, and gives the worker's thread free while it waits.
    """

    is_remote = True

    def __init__(
        self,
        address: ClusterAddress,
        security: Security | None = None,
        mode: str = READ_WRITE,
        *,
        lock_timeout: float = 60.0,
        handle_grace: float = 60.0,
    ) -> None:
        self.options = address
        self.security, self.mode = security, mode
        self.lock_timeout, self.handle_grace = lock_timeout, handle_grace
        self.gather_limit = self.result_limit = 64 * 2**20
        self.epoch = ""
        self.directory: str | None = None
        self.durable = False
        self._client: Client | None = None
        self._pid = 0
        self._lock = threading.RLock()

    @property
    def address(self) -> str:
        """``dask://host:port``, with the options that are not the default."""
        return str(self.options)

    @property
    def host_id(self) -> bytes:
        """Tells this cluster from hosts, for whom its arrays are somebody else's."""
        return f"dask:{self.options.place}".encode()

    def seems_ended(self) -> bool:
        """Whether the connection is known to be lost."""
        return self._client is not None and self._pid == os.getpid() and self._client.status != "running"

    # -- the client --------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client of this process, connected.

        Raises
        ------
        HostGoneError
            The scheduler does not answer.
        """
        client = self._client
        if client is not None and self._pid == os.getpid() and client.status == "running":
            return client
        with self._lock:
            if self._client is None or self._pid != os.getpid() or self._client.status != "running":
                self._connect()
            assert self._client is not None
            return self._client

    def _connect(self) -> None:
        if self._client is not None and self._pid == os.getpid():
            with contextlib.suppress(Exception):  # it is lost, and may fail to say goodbye in any way
                self._client.close(timeout=1)
        elif self._client is not None:
            _inherited.append(self._client)
        address = self.options.scheduler(encrypted=self.security is not None)
        client = _workers_client(address)
        try:
            if client is None:
                seconds = min(_CONNECT_SECONDS, self.options.timeout)
                self._knock(seconds)
                client = Client(
                    address, timeout=seconds, security=self.security, set_as_default=False, name="arrayhost"
                )
            client.register_plugin(CataloguePlugin())
        except (OSError, TimeoutError) as error:
            raise HostGoneError(f"no Dask scheduler answers at {self.options.place}: {error}") from error
        self._client, self._pid = client, os.getpid()
        self.hello()

    def _knock(self, seconds: float) -> None:
        """Raise OSError if nobody listens there: a Dask client that cannot connect leaves a thread behind."""
        place = parse_tcp(TCP_PREFIX + self.options.place)
        socket.create_connection(place, timeout=seconds).close()

    def hello(self, directory: str | None = None, *, durable: bool = False) -> dict[str, Any]:
        """Learn which catalogue this is; offer it a directory."""
        told: dict[str, Any] = self.call("hello", directory=directory, durable=durable)
        self.epoch, self.directory, self.durable = told["epoch"], told["directory"], told["durable"]
        return told

    def close(self) -> None:
        """Close this process's client."""
        with self._lock:
            if self._client is not None and self._pid == os.getpid():
                self._client.close(timeout=_CONNECT_SECONDS)
            self._client = None

    # -- requests to the catalogue -----------------------------------------------------------------------------------

    def call(self, request: str, *, seconds: float = 0.0, **arguments: Any) -> Any:
        """Ask the catalogue.

        Parameters
        ----------
        request : str
            A method of `CataloguePlugin`.
        seconds : float
            How long it may wait by itself, beyond the time for an answer.
        **arguments
            Its arguments.

        Raises
        ------
        HostGoneError
            The scheduler is gone, or does not answer.
        Exception
            What the catalogue raised.
        """
        client = self.client
        if request not in _REQUESTS_WITHOUT_CLIENT:
            arguments["client"] = client.id
        method = getattr(client.scheduler, f"arrayhost_{request}")
        with self._translated(), _free_thread():
            return client.sync(method, callback_timeout=_REQUEST_SECONDS + seconds, **arguments)

    def tell(self, what: str, **arguments: Any) -> None:
        """Tell the catalogue something that needs no answer, after all that was told or submitted before."""
        client = self._client
        if client is None or self._pid != os.getpid() or client.status != "running":
            return
        client._send_to_scheduler({"op": f"arrayhost_{what}", "client": client.id, **arguments})

    def check_writable(self) -> None:
        """Raise ReadOnlyError if this process has connected with ``mode="r"``."""
        if self.mode == READ_ONLY:
            raise ReadOnlyError

    # -- computations ------------------------------------------------------------------------------------------------

    def wait(self, futures: Sequence[Future]) -> None:
        """Wait until tasks have been carried out.

        Raises
        ------
        ClusterTimeoutError
            There was no worker for `idle` seconds, or the whole took longer than `timeout`.
        HostGoneError
            The scheduler is gone.
        Exception
            What a task raised.
        """
        client = self.client
        begun = alive = time.monotonic()
        bar = _ProgressBar(futures) if self.options.progress else None
        with self._translated(), _free_thread(), client.as_current():
            while True:
                try:
                    wait(list(futures), timeout=_PATIENCE)
                    break
                except TimeoutError:
                    pass
                if client.status != "running":
                    raise HostGoneError(f"the Dask scheduler at {self.options.place} is gone")
                now = time.monotonic()
                if self._pulse(client)["busy"]:
                    alive = now
                if bar is not None:
                    bar.show(now - begun)
                if now - alive >= self.options.idle or now - begun >= self.options.timeout:
                    raise self._late(now - begun)
        if bar is not None:
            bar.end()
        for future in futures:
            if future.status == "error":
                future.result()  # raises what the task raised

    def _late(self, seconds: float) -> ClusterTimeoutError:
        return ClusterTimeoutError(self.options.place, seconds, self._pulse(self.client)["workers"])

    @staticmethod
    def _pulse(client: Client) -> dict[str, int]:
        scheduler: Any = client.scheduler
        return client.sync(scheduler.arrayhost_pulse, callback_timeout=_REQUEST_SECONDS)

    def gather(self, futures: Any) -> Any:
        """Bring results here; `wait` has waited for them."""
        client = self.client
        with self._translated(), _free_thread():
            return client.sync(lambda: client.gather(futures, asynchronous=True), callback_timeout=self.options.timeout)

    def scatter(self, value: Any) -> Future:
        """Bring a value to a worker."""
        client = self.client
        with self._translated(), _free_thread():
            future: Future = client.sync(
                lambda: client.scatter(value, hash=False, asynchronous=True), callback_timeout=self.options.timeout
            )
        return future

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what is wrong where Dask tells of sockets."""
        try:
            yield
        except (CommClosedError, ConnectionError, TimeoutError) as error:
            if isinstance(error, (HostGoneError, ClusterTimeoutError)):
                raise
            if type(error).__module__.startswith("arrayhost"):
                raise
            raise HostGoneError(f"the Dask scheduler at {self.options.place} does not answer: {error}") from error


_REQUESTS_WITHOUT_CLIENT = frozenset(
    ["hello", "stored_names", "saved", "wait", "renew", "unlock", "forget_name", "list_names", "attributes", "pulse",
     "facts"]
)  # fmt: skip


class _ProgressBar:
    """A line on standard error that tells how far a computation has come, once it has taken a second."""

    def __init__(self, futures: Sequence[Future]) -> None:
        self._futures = futures
        self._shown = False

    def show(self, seconds: float) -> None:
        if seconds < 1.0 or not sys.stderr.isatty():
            return
        done = sum(future.done() for future in self._futures)
        filled = "#" * (30 * done // max(1, len(self._futures)))
        sys.stderr.write(f"\r[{filled:<30}] {done}/{len(self._futures)} parts, {seconds:.0f} s ")
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * 70 + "\r")
            sys.stderr.flush()


def _in_task() -> bool:
    return getattr(thread_state, "execution_state", None) is not None


@contextlib.contextmanager
def _free_thread() -> Iterator[None]:
    """Inside a task: let the worker run others while this one waits, or they would wait for each other."""
    if not _in_task() or getattr(thread_state, "arrayhost_away", False):
        yield
        return
    thread_state.arrayhost_away = True
    secede()
    try:
        yield
    finally:
        rejoin()
        thread_state.arrayhost_away = False


def _workers_client(address: str) -> Client | None:
    """The client of the worker that this process is, if it is one of that cluster."""
    try:
        worker = get_worker()
    except ValueError:
        return None
    if worker.scheduler.address != address:
        return None
    client: Client = worker._get_client(timeout=_CONNECT_SECONDS)
    return client


# Clients of the parent of a forked child, kept for ever: their finalizers would wait for a thread that is not here.
_inherited: list[Client] = []

_links: dict[tuple[str, str], ClusterLink] = {}
_links_lock = threading.Lock()


def link_for(
    address: ClusterAddress, mode: str = READ_WRITE, security: Security | None = None, **seconds: float
) -> ClusterLink:
    """Return this process's link to a cluster; `security` is kept for proxies that are unpickled here later."""
    with _links_lock:
        link = _links.get((address.place, mode))
        if link is None:
            known = next((other.security for (place, _), other in _links.items() if place == address.place), None)
            link = _links[address.place, mode] = ClusterLink(address, security or known, mode, **seconds)
        elif security is not None:
            link.security = security
        return link


def close_link(place: str) -> None:
    """Close this process's clients of a cluster that has ended."""
    with _links_lock:
        gone = [_links.pop(key) for key in list(_links) if key[0] == place]
    for link in gone:
        link.close()


def _after_fork() -> None:
    global _links_lock
    _links_lock = threading.Lock()
    for link in _links.values():
        link._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
