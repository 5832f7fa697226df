"""`ArrayManager`: starts a host or connects to one, and creates arrays and objects in it.

A drop-in for :class:`multiprocessing.managers.BaseManager`: what a program does with that works here too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
from multiprocessing import process, util
from multiprocessing.context import ProcessError
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from arrayhost.client.object import typed
from arrayhost.client.passing import access
from arrayhost.client.ways import own_key
from arrayhost.clusters import ClusterSettings
from arrayhost.core.addresses import TCP_PREFIX, parse_tcp, tcp_address
from arrayhost.core.names import check_name
from arrayhost.core.records import ArrayRecord, HostRecord, HostStatistics, array_record, host_record
from arrayhost.creators import Creators
from arrayhost.engines.host import HostEngine
from arrayhost.engines.process import check_importable, end_host, own_address, start_host
from arrayhost.errors import HostGoneError, UnsupportedError
from arrayhost.host.objects import Registration
from arrayhost.host.undo import UNDO_BYTES
from arrayhost.hosting import HostOptions, build_server
from arrayhost.named import NamedArrays
from arrayhost.serving import terminated_after
from arrayhost.standing import default_address, start_detached
from arrayhost.wire.addresses import LOCAL_PREFIX, socket_name
from arrayhost.wire.hello import READ_ONLY, READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import BaseContext
    from types import TracebackType

    from arrayhost.client.session import Session
    from arrayhost.engines.contract import Engine
    from arrayhost.host.server import Server

__all__ = ["ArrayManager", "connect"]

_CLUSTER_PREFIX = "dask://"


class _OnClassToo:
    """`ArrayManager.connect`: a method of managers that, called on the class, makes the manager first."""

    def __init__(self, method: Callable[[Any], None]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __get__(self, manager: Any, owner: type[ArrayManager]) -> Callable[..., Any]:
        if manager is not None:
            return functools.partial(self.method, manager)
        return functools.partial(_connected, owner)


class ArrayManager(NamedArrays, Creators, ClusterSettings):
    """A process that hosts arrays and objects, and the way to create and find them.

    Parameters
    ----------
    address : str, optional
        ``unix:/path``, ``/path`` or ``unix:@name``. By default a new name that leaves no file behind. To connect to a
        host on another machine: ``tcp://host:port`` or ``(host, port)``. For arrays on a Dask cluster:
        ``dask://host:port`` of its scheduler, or ``dask://local?workers=4`` for one that is started; see docs/dask.md.
    authkey : bytes, optional
        The host's key, which every client then has to have. Without, it is this process's key (that of the file which
        ``ARRAYHOST_KEY_FILE`` names, else ``multiprocessing.current_process().authkey``), which only clients over TCP
        need: on one machine the kernel tells whether a client belongs to the same user, and no other is let in.
    serializer : str
        Accepted for compatibility; there is one way to encode.
    ctx : multiprocessing context, optional
        How the host's process is started.
    shutdown_timeout : float
        Seconds that the host has to end by itself.
    huge_pages : bool
        Put arrays of 2 MiB and more on huge pages where the kernel can.
    handle_grace : float
        Seconds that an array lives on after its last proxy if one of its proxies was ever pickled.
    lock_timeout : float
        Seconds that locks are waited for unless a call says otherwise.
    max_bytes : int, optional
        Bound on the memory of all arrays of this host.
    directory : path_like, optional
        Where named arrays are kept as ``.npy`` files, found again by the next host of that directory; made if it is not
        there. One host at a time. Naming an array that lies elsewhere stores a copy.
    undo_bytes : int
        With a directory: a write in the host that may touch no more than this is undone by the next host if this one is
        killed in its middle; the old bytes go to a file first. 0 for no such records.
    listen : str or sequence of str
        TCP ports on which the host is to listen besides: ``tcp://host:port``, port 0 for a free one. Who connects there
        must have `authkey`.
    tls : None, SSLContext, path or sequence of path
        For a host that is started: ``(certificate, key)`` of its TCP ports, and as a third file the authorities of the
        clients' certificates, which are then required. To connect: see `connect`. For a cluster: a
        `distributed.Security`.
    insecure : bool
        Listen on other addresses than loopback also without TLS.

    Notes
    -----
    Also a mapping of named arrays: see `NamedArrays`. A type that you register under the name of one of its methods
    takes that method's place.

    Safety: any thread; forked children may go on using it.

    Examples
    --------
    >>> class Arrays(ArrayManager):
    ...     pass
    >>> Arrays.register("shared_array", np.ones)
    >>> with Arrays() as manager:
    ...     a = manager.shared_array((3,))
    ...     a[0] = 7
    ...     float(a.sum())
    9.0
    """

    _registry: ClassVar[dict[str, tuple[Registration, Any]]] = {}

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: BaseContext | None = None,
        *,
        shutdown_timeout: float = 5.0,
        huge_pages: bool = True,
        handle_grace: float = 60.0,
        lock_timeout: float = 60.0,
        max_bytes: int | None = None,
        directory: str | os.PathLike[str] | None = None,
        undo_bytes: int = UNDO_BYTES,
        listen: str | Sequence[str] = (),
        tls: Any = None,
        insecure: bool = False,
    ) -> None:
        del serializer
        self._address: str | None = _normal_address(address)
        self._given_key = None if authkey is None else bytes(authkey)
        self._authkey = own_key() if authkey is None else bytes(authkey)
        self._ctx: Any = ctx if ctx is not None else multiprocessing.get_context()
        self._shutdown_timeout = shutdown_timeout
        self._options = {
            "huge_pages": bool(huge_pages),
            "handle_grace": _seconds("handle_grace", handle_grace),
            "lock_timeout": _seconds("lock_timeout", lock_timeout),
            "max_bytes": max_bytes,
            "directory": None if directory is None else os.path.abspath(directory),
            "undo_bytes": _size("undo_bytes", undo_bytes),
            "listen": _ports(listen),
            "tls": tls,
            "insecure": bool(insecure),
        }
        self._mode = READ_WRITE
        self._tls = tls
        self._network_addresses: tuple[str, ...] = ()
        self._engine: Engine | None = None
        self._process: Any = None
        self._state = _State()

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str | None:
        """Where the host listens; None before it was started without a given address."""
        return self._address

    @property
    def authkey(self) -> bytes:
        """The key of the host."""
        return self._authkey

    @property
    def network_addresses(self) -> tuple[str, ...]:
        """The TCP ports on which a host that this manager started listens, as ``tcp://host:port``."""
        return self._network_addresses

    def start(self, initializer: Callable[..., Any] | None = None, initargs: Sequence[Any] = ()) -> None:
        """Start the host in a process of its own.

        Parameters
        ----------
        initializer : callable, optional
            Called in the host before it serves.
        initargs : sequence
            Its arguments.

        Raises
        ------
        multiprocessing.ProcessError
            It was started before.
        ArgumentEncodingError
            Under spawn or forkserver: something registered cannot be imported by the new process.
        OSError
            The address is taken.

        Notes
        -----
        Cost: a new process, which takes as long as the start method does, and one connection. The host
        ends with this process, however that ends.
        """
        self._state.check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not a {type(initializer).__name__}")
        if _is_cluster(self._address):
            self._start_cluster(initializer)
            return
        registry = self._registrations()
        needed = {f"type {typeid!r}": registration.callable for typeid, registration in registry.items()}
        check_importable(self._ctx, {**needed, "initializer": initializer, "initargs": initargs})
        try:
            start_host(
                self._ctx, f"{type(self).__name__}-host", registry, self._host_options(), self._own,
                initializer=initializer, initargs=initargs, shutdown_timeout=self._shutdown_timeout,
            )  # fmt: skip
        except BaseException:
            # Ctrl-C just after it was handed over.
            if self._process is not None:
                self.shutdown()
            raise

    def _own(self, host: Any, session: Session, ports: tuple[str, ...]) -> None:
        """Answer for a host that was started, until it is shut down."""
        self._address, self._network_addresses = session.address, ports
        self._process = host
        self._begin(HostEngine(session.address, follows=False), end_host, host, session, self._shutdown_timeout)

    def _start_cluster(self, initializer: Any) -> None:
        if initializer is not None:
            raise UnsupportedError("start(initializer) is for hosts: to run a function on each worker use Client.run")
        engine = self._open_cluster(start=True)
        self._address = engine.address
        self._begin(engine, engine.close)

    def _begin(self, engine: Engine, end: Callable[..., None], *args: Any) -> None:
        """Use an engine that was started for this manager and ends with it."""
        self._engine = engine
        self._state.value = "started"
        # At exit, too: a program that forgets shutdown() leaves nothing behind.
        self.shutdown = util.Finalize(  # type: ignore[method-assign]  # as the standard library does
            self, _finalize_manager, args=(self._state, end, *args), exitpriority=0
        )

    @_OnClassToo
    def connect(self) -> None:
        """Connect to a host, or a cluster, that is running at `address`.

        Called on the class, ``Arrays.connect(address, authkey, mode, tls=...)`` makes a manager and connects it.

        Raises
        ------
        HostGoneError
            There is none.
        NotAuthorizedError
            It has another authkey, or belongs to another user.
        """
        if self._address is None:
            raise ValueError("connect() needs the address of a running host: ArrayManager(address=...)")
        if _is_cluster(self._address):
            self._engine = self._open_cluster(start=False)
        else:
            self._engine = HostEngine(self._address, self._given_key, mode=self._mode, tls=self._tls)
        self._state.value = "started"

    def get_server(self) -> _ServerHandle:
        """Make this process the host: ``manager.get_server().serve_forever()``."""
        self._state.check_initial()
        if _is_cluster(self._address):
            raise UnsupportedError("a process cannot be a cluster: use start() or connect()")
        return _ServerHandle(build_server(self._registrations(), self._host_options()))

    def shutdown(self) -> None:
        """Stop the host that this manager started. Mapped arrays stay readable; writes raise `HostGoneError`."""
        if self._state.value == "initial":
            raise ProcessError("this manager has not been started")
        # After start() an instance attribute stands here; a connected manager does not own its host.

    def stop_host(self) -> None:
        """Ask the host to end, also one that this manager did not start; a standing host finishes what runs first."""
        self._running().stop()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the host's process to end.

        Parameters
        ----------
        timeout : float, optional
            Seconds.
        """
        # After shutdown() the process has been waited for, and its descriptors are closed.
        if self._process is not None:
            with contextlib.suppress(ValueError):
                self._process.join(timeout)

    def __enter__(self) -> Self:
        if self._state.value == "initial":
            self.start()
        self._state.check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._address is None:
            raise ProcessError("a manager can be passed to other processes once it has been started")
        engine = self._engine
        known = access(engine.session) if isinstance(engine, HostEngine) else {"mode": self._mode}
        return _reconnect, (type(self), self._address, known)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state.value} at {self._address}>"

    def _host_options(self) -> HostOptions:
        if self._address is not None and self._address.startswith(TCP_PREFIX):
            raise ValueError(
                f"address {self._address!r}: a host listens on a Unix socket, and with listen= on TCP ports besides; "
                f"use listen={self._address!r}, or connect() if the host runs already"
            )
        address = self._address or own_address()
        return HostOptions(
            address=address, authkey=self._authkey, needs_key=self._given_key is not None, **cast("Any", self._options)
        )

    def _open_cluster(self, *, start: bool) -> Any:
        """Connect to a cluster or start one; the module is heavy, and optional, so it is imported when first used."""
        opening = importlib.import_module("arrayhost.engines.dask.opening")
        options = {name: self._options[name] for name in ("handle_grace", "lock_timeout", "directory", "tls")}
        return opening.open_cluster(self._address, self._registrations, start=start, mode=self._mode, **options)

    @classmethod
    def _registrations(cls) -> dict[str, Registration]:
        return {typeid: registration for typeid, (registration, _) in cls._registry.items()}

    # -- registering -----------------------------------------------------------------------------------------------

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Sequence[str] | None = None,
        method_to_typeid: dict[str, str] | None = None,
        create_method: bool = True,
        *,
        serialize: bool = False,
    ) -> None:
        """Register a function or class; what it returns is hosted.

        Parameters
        ----------
        typeid : str
            The name of the method that managers get.
        callable : callable, optional
            A NumPy function, any other function, a bound method, a class. Without one, managers can only connect to
            hosts that know the type.
        proxytype : type, optional
            A class of proxies with methods of its own: derived from `HostedObject`, from the standard library's
            BaseProxy (ListProxy, NamespaceProxy, one made by MakeProxyType), or from neither. It goes for objects;
            proxies of arrays are always `HostedArray`.
        exposed : sequence of str, optional
            The only names that proxies reach. By default all public ones, and those special methods that make an
            object a container or a function.
        method_to_typeid : dict, optional
            Methods whose results are hosted, and as what.
        create_method : bool
            Whether managers get a method.
        serialize : bool
            Run calls on one instance one at a time.

        Raises
        ------
        TypeError
            `callable` is not callable, `typeid` is no text, or `proxytype` is no class.
        """
        checked: Any = typeid  # callers without a type checker pass anything
        if not isinstance(checked, str) or not checked:
            raise TypeError(f"typeid must be a name, not {typeid!r}")
        if callable is not None and not hasattr(callable, "__call__"):  # noqa: B004  # the parameter hides callable()
            raise TypeError(
                f"register({typeid!r}, ...): a {type(callable).__name__} cannot be called; pass a function or a class"
            )
        proxytype = _proxy_class(typeid, proxytype)
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        if exposed is None:
            exposed = getattr(proxytype, "_exposed_", None)
        mapping = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None) or {}
        registration = Registration(
            callable, None if exposed is None else tuple(exposed), dict(mapping), bool(serialize)
        )
        cls._registry[typeid] = (registration, proxytype)
        if create_method:

            def create(self: ArrayManager, /, *args: Any, **kwds: Any) -> Any:
                return self._create(typeid, args, kwds)

            create.__name__ = typeid
            create.__doc__ = f"Call the registered {typeid!r} in the host; return a proxy of what it returns."
            setattr(cls, typeid, create)

    # -- what its mixins use -----------------------------------------------------------------------------------------

    def _running(self) -> Engine:
        if self._engine is None:
            raise ProcessError("this manager is not running: use 'with', start() or connect() first")
        return self._engine

    def _create(self, typeid: str, args: Sequence[Any], kwds: dict[str, Any]) -> Any:
        return typed(self._running().create(typeid, args, kwds), self._registry)

    # -- facts -----------------------------------------------------------------------------------------------------

    def statistics(self) -> HostStatistics:
        """Ask the host what it holds, and for whom. Cost: one round trip."""
        return HostStatistics(**self._running().statistics())

    def inspect(self) -> HostRecord:
        """Ask the host for a record of itself, of each array and of each client. Cost: one round trip."""
        return host_record(self._running().records())

    def inspect_array(self, name: str) -> ArrayRecord:
        """Ask the host for the record of one named array. Cost: one round trip.

        Raises
        ------
        ReferentNotFoundError
        """
        return array_record(self._running().records(check_name(name))["array"])

    def _debug_info(self) -> str:
        """List what is hosted, as the standard library's method of this name."""
        return self._running().describe()

    def _number_of_objects(self) -> int:
        """Count what is hosted, as the standard library's method of this name."""
        statistics = self.statistics()
        return statistics.n_arrays + statistics.n_objects


class _State:
    """How far a manager's life has come; an object, because the manager's finalizer must not know the manager."""

    value = "initial"  # then "started" (or connected), then "ended"

    def check_initial(self) -> None:
        if self.value == "started":
            raise ProcessError("this manager was started or connected before")
        self.check_running()

    def check_running(self) -> None:
        if self.value == "ended":
            raise ProcessError("this manager has been shut down; make another")


def _finalize_manager(state: _State, end: Callable[..., None], *args: Any) -> None:
    state.value = "ended"
    end(*args)


class _ServerHandle:
    """What `ArrayManager.get_server` returns: the host, to be served by this process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.address = server.address

    def serve_forever(self) -> None:
        """Serve until `stop` or Ctrl-C.

        SIGTERM ends the process as it does by default, but not before the socket is removed. A handler of the program's
        own stays as it is, and may call `stop`.
        """
        process.current_process()._manager_server = self  # type: ignore[attr-defined]  # as the standard library
        try:
            with contextlib.suppress(KeyboardInterrupt), terminated_after(self._server.stop):
                self._server.serve_forever()
        finally:
            process.current_process()._manager_server = None  # type: ignore[attr-defined]  # likewise

    def stop(self) -> None:
        """End `serve_forever`, from any thread."""
        self._server.stop()


def connect(
    address: str | None = None,
    authkey: bytes | None = None,
    mode: str = READ_WRITE,
    *,
    start: bool = False,
    tls: Any = None,
) -> ArrayManager:
    """Connect to a running host.

    Parameters
    ----------
    address : str, optional
        ``unix:/path`` or ``unix:@name``. By default this user's standing host: the one at ``ARRAYHOST_ADDRESS``, else
        the one in ``$XDG_RUNTIME_DIR``, as ``arrayhost serve`` makes it. For a host on another machine
        ``tcp://host:port``, for a Dask cluster ``dask://host:port`` of its scheduler.
    authkey : bytes, optional
        The host's key: over TCP both ends prove that they have it, and on a Unix socket a host that was given one asks
        for it. None means the key of this process: that of the file which ``ARRAYHOST_KEY_FILE`` names, else the one
        which the processes of one program share (``multiprocessing.current_process().authkey``).
    mode : {"r+", "r"}
        With ``"r"`` arrays are mapped read-only, ``a.flags.writeable`` is False, and the host refuses this process
        whatever would change something: writes, ``a.write()``, new arrays, names, calls on hosted objects, shutdown.
        A pickled proxy of such a connection opens a read-only one in its receiver. A guard against accidents: another
        process of the same user can connect without it.
    start : bool
        Start a host there if there is none. It lives on when this process ends, until somebody stops it
        (``arrayhost stop``); of several processes that start one at once, all get the same.
    tls : None, bool, SSLContext, path or sequence of path
        Over TCP: a file of the authorities that may have signed the host's certificate; True for the system's; three
        files for that, and this client's own certificate and key. None for no TLS.

    Returns
    -------
    ArrayManager
        Connected; leaving its ``with`` block does not stop the host.

    Raises
    ------
    HostGoneError
        Nobody answers there.
    NotAuthorizedError
        The host belongs to another user, or has another key or a certificate that is not accepted.
    ProtocolError
        It is no host, or only one of the two ends uses TLS.
    HostBusyError
    ValueError
        `mode` is something else.

    Notes
    -----
    Over TCP every operation is evaluated in the host, functions and pickles do not travel, and sections work on a copy
    that is written back at their end. Key and certificates are kept for this address: proxies that are unpickled in
    this process use them.
    """
    return _connected(ArrayManager, address, authkey, mode, start=start, tls=tls)


def _connected(
    cls: type[ArrayManager],
    address: str | None = None,
    authkey: bytes | None = None,
    mode: str = READ_WRITE,
    *,
    start: bool = False,
    tls: Any = None,
) -> ArrayManager:
    if mode not in (READ_WRITE, READ_ONLY):
        raise ValueError(f"mode {mode!r}: expected 'r+' or 'r'")
    manager = _unconnected(cls, default_address() if address is None else address, authkey, mode, tls)
    try:
        manager.connect()
    except HostGoneError:
        if not start or not str(manager.address).startswith(LOCAL_PREFIX):
            raise
        start_detached(str(manager.address))
        manager.connect()
    return manager


def _is_cluster(address: str | None) -> bool:
    return address is not None and address.startswith(_CLUSTER_PREFIX)


def _unconnected(
    cls: type[ArrayManager], address: str, authkey: bytes | None = None, mode: str = READ_WRITE, tls: Any = None
) -> ArrayManager:
    manager = cls(address=address, authkey=authkey, tls=tls)
    manager._mode = mode
    return manager


def _reconnect(cls: type[ArrayManager], address: str, known: dict[str, Any]) -> ArrayManager:
    manager = _unconnected(cls, address, **known)
    manager.connect()
    return manager


def _ports(listen: str | Sequence[str]) -> tuple[str, ...]:
    """Check what is to be listened on.

    Raises
    ------
    ValueError
    """
    ports = (listen,) if isinstance(listen, str) else tuple(listen)
    for port in ports:
        parse_tcp(port)
    return ports


def _normal_address(address: Any) -> str | None:
    """Turn what users write into ``unix:...`` or ``tcp://...``.

    Raises
    ------
    ValueError, TypeError
    """
    if address is None or address == "":
        return None
    if isinstance(address, tuple):
        # As the standard library writes network addresses.
        address = tcp_address(address) if len(address) == 2 else repr(address)
    if not isinstance(address, str):
        raise TypeError(f"address must be 'unix:/path' or '/path', not {address!r}")
    text: str = address
    if text.startswith(_CLUSTER_PREFIX):
        return text
    if text.startswith(TCP_PREFIX):
        parse_tcp(text)
        return text
    if text.startswith("\0"):
        text = "@" + text[1:]
    if not text.startswith(LOCAL_PREFIX):
        text = LOCAL_PREFIX + text
    socket_name(text)  # raises for anything else
    return text


def _seconds(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name}={value!r}: seconds, 0 or more")
    return float(value)


def _size(name: str, value: int) -> int:
    if not value >= 0:
        raise ValueError(f"{name}={value!r}: bytes, 0 or more")
    return int(value)


def _proxy_class(typeid: str, proxytype: Any) -> type | None:
    """Check what was given as `proxytype`; None stands for the classes made here."""
    if proxytype is None or isinstance(proxytype, type):
        return proxytype
    if getattr(proxytype, "__module__", "") == "multiprocessing.managers" and proxytype.__name__ == "AutoProxy":
        return None  # a function that makes classes by what is exposed, as is done here
    raise TypeError(f"register({typeid!r}, ...): proxytype must be a class, not {proxytype!r}")
