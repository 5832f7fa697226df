"""The cluster as an engine: what a manager makes and finds lies in chunks on the workers."""

from __future__ import annotations

import atexit
import inspect
import os
import uuid
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.client.functions import sendable
from arrayhost.core.layout import check_mappable, dtype_from_wire
from arrayhost.engines.dask import checkpoints
from arrayhost.engines.dask.adopting import adopt, default_chunks, proxy_of_told, scattered
from arrayhost.engines.dask.blocks import call, facts_of, itself
from arrayhost.engines.dask.computing import regular
from arrayhost.engines.dask.creation import CREATOR_OF, CREATORS
from arrayhost.engines.dask.link import close_link
from arrayhost.engines.dask.operands import current, is_of_cluster
from arrayhost.engines.files import opened
from arrayhost.errors import ReferentExistsError, ReferentNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.engines.dask.array import ClusterArray
    from arrayhost.engines.dask.companion import Companion
    from arrayhost.engines.dask.link import ClusterLink
    from arrayhost.engines.dask.trial import TrialCluster
    from arrayhost.host.objects import Registration

__all__ = ["DaskEngine"]


class DaskEngine:
    """A Dask cluster, as a manager uses it.

    Parameters
    ----------
    link : ClusterLink
    registrations : callable
        Returns what the manager's class has registered.
    companion : Companion
        Where objects live.
    trial : TrialCluster, optional
        The cluster, if it is the manager's own.
    """

    def __init__(
        self,
        link: ClusterLink,
        registrations: Callable[[], Mapping[str, Registration]],
        companion: Companion,
        trial: TrialCluster | None = None,
    ) -> None:
        self.link = link
        self._registrations, self._companion, self._trial = registrations, companion, trial
        self._pid = os.getpid()
        if trial is not None:
            # Before Dask ends clusters at exit by itself: clients still connected would say that they are lost.
            atexit.register(self.close)

    @property
    def address(self) -> str:
        """Where other processes find the cluster."""
        return self.link.address

    def close(self) -> None:
        """End what was started for this manager: the companion, and its own cluster."""
        if os.getpid() != self._pid:
            return  # a forked child's
        atexit.unregister(self.close)
        self._companion.close()
        if self._trial is not None:
            close_link(self.link.options.place)
            self._trial.close()

    # -- making arrays -----------------------------------------------------------------------------------------------

    def create(self, typeid: str, args: Sequence[Any], kwargs: Mapping[str, Any], chunks: Any = None) -> Any:
        """Make an array chunk by chunk where Dask has the function, else by one worker; an object in the companion."""
        self.link.check_writable()
        options = dict(kwargs)
        if typeid.startswith("#"):
            return self._created(typeid[1:], args, options, chunks)
        registration = self._registrations().get(typeid)
        if registration is None or registration.callable is None:
            raise ReferentNotFoundError(f"nothing is registered as {typeid!r} with this manager's class")
        function = registration.callable
        chunks = options.pop("chunks", chunks)
        creator = _creator_of(function)
        if creator is not None:
            return self._created(creator, args, options, chunks)
        if inspect.isclass(function):
            return self._companion.engine.create(typeid, args, options)
        return self._called(function, args, options, chunks, typeid)

    def run(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function in a worker; its array is hosted, and any other result in the companion."""
        self.link.check_writable()
        return self._called(function, args, kwargs, None, None)

    def _created(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], chunks: Any) -> Any:
        if name in ("array", "asarray"):
            return self._hosted(args, kwargs, chunks)
        with dask.config.set({"array.chunk-size": self.link.options.chunk}):
            array = CREATORS[name](*args, chunks="auto" if chunks is None else chunks, **kwargs)
        return self._adopted(array, None)

    def _hosted(self, args: Sequence[Any], kwargs: Mapping[str, Any], chunks: Any) -> Any:
        value, dtype = args[0], args[1] if len(args) > 1 else kwargs.get("dtype")
        array = self._as_dask(value, chunks)
        if dtype is not None:
            array = array.astype(dtype)
        missing = int(kwargs.get("ndmin", 0)) - array.ndim
        if missing > 0:
            array = array[(None,) * missing]
        return self._adopted(array, None)

    def _called(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], chunks: Any, typeid: str | None
    ) -> Any:
        client = self.link.client
        result = client.submit(call, sendable(function), list(args), dict(kwargs), pure=False)
        facts = client.submit(facts_of, result, pure=False)
        self.link.wait([facts])
        shape, dtype = self.link.gather(facts)
        if shape is None:
            value = self.link.gather(result)
            return self._companion.engine.run(itself, [value], {})
        check_mappable(dtype)
        name = f"arrayhost-run-{uuid.uuid4().hex}"
        whole = da.Array({(name, *(0,) * len(shape)): result}, name, tuple((n,) for n in shape), dtype=dtype)
        return self._adopted(whole.rechunk(default_chunks(self.link, shape, dtype, chunks)), None)

    # -- values from elsewhere ---------------------------------------------------------------------------------------

    def converted(self, value: Any) -> Any:
        """Make what is to be hosted an array; Dask's arrays and those in files stay what they are."""
        value = opened(value)
        is_array = hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")
        return value if is_array else np.asarray(value)

    def _as_dask(self, value: Any, chunks: Any) -> da.Array:
        """Values as Dask's array, those of this process on their way to the workers."""
        if is_of_cluster(value) and value._source.link.options.place == self.link.options.place:
            shown = current(value)
            array = shown if isinstance(shown, da.Array) else self._sent(shown, chunks)
            return (
                array if chunks is None else array.rechunk(default_chunks(self.link, array.shape, array.dtype, chunks))
            )
        if isinstance(value, da.Array):
            return regular(value if chunks is None else value.rechunk(chunks))
        if isinstance(value, HostedArray):
            value = value.copy()
        return self._sent(value, chunks)

    def _sent(self, value: Any, chunks: Any) -> da.Array:
        sizes = default_chunks(self.link, value.shape, np.dtype(value.dtype), chunks)
        return scattered(self.link, value, sizes)

    # -- names -------------------------------------------------------------------------------------------------------

    def get_name(self, name: str) -> Any:
        """Return the array of a name; open it if it is only stored."""
        told = self.link.call("get_name", name=name)
        if "stored" not in told:
            return proxy_of_told(self.link, told)
        about = told["stored"]
        array = checkpoints.stored_array(about)
        return adopt(self.link, array, name, exist_ok=True, stored_version=about["version"])

    def create_name(
        self, name: str, shape: Any, dtype: Any, order: str, fill_value: Any, exist_ok: bool, chunks: Any
    ) -> Any:
        """Make an array and name it; the catalogue decides who was first."""
        self.link.check_writable()
        wanted = (shape,) if np.ndim(shape) == 0 else tuple(shape)
        if exist_ok and name in self.list_names():
            return _fitting(self.get_name(name), name, wanted, dtype)
        array = da.full(wanted, fill_value, dtype=dtype, chunks=default_chunks(self.link, wanted, dtype, chunks))
        return _fitting(self._adopted(array, name, exist_ok=exist_ok), name, wanted, dtype)

    def put_name(self, name: str, value: Any, overwrite: bool, wanted: bool, chunks: Any) -> Any:
        """Name an array of this cluster, or a copy of values."""
        self.link.check_writable()
        if not overwrite and name in self.list_names():
            raise ReferentExistsError(f"there is an array named {name!r} already; overwrite=True replaces it")
        if not is_of_cluster(value) or value._source.link.options.place != self.link.options.place:
            return self._adopted(self._as_dask(value, chunks), name, overwrite=overwrite)
        view = None if value._selection.is_whole else value._selection.to_wire()
        told = self.link.call("put_name", name=name, ident=value._source.ident, view=view, overwrite=overwrite)
        array = proxy_of_told(self.link, told)
        self._store(array)
        return array

    def _adopted(self, array: da.Array, name: str | None, **how: Any) -> Any:
        proxy = adopt(self.link, array, name, **how)
        self._store(proxy, at_once=any(layer.startswith("arrayhost-put-") for layer in array.dask.layers))
        return proxy

    def _store(self, array: ClusterArray, *, at_once: bool = False) -> None:
        source = array._source
        snapshot = source.snapshot()
        if snapshot.dirty:
            checkpoints.after_commit(source, snapshot, at_once=at_once)

    def delete_name(self, name: str) -> None:
        """Take a name away, and what is stored under it."""
        self.link.check_writable()
        self.link.call("forget_name", name=name)
        if self.link.durable:
            future = self.link.client.submit(checkpoints.remove, f"{self.link.directory}/{name}", pure=False)
            self.link.wait([future])

    def list_names(self) -> list[str]:
        """Return all names."""
        return list(self.link.call("list_names"))

    # -- the cluster -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Store the newest version of each named array, and let recovery begin there."""
        if self.link.directory is None:
            return
        for name in self.list_names():
            told = self.link.call("get_name", name=name)
            if "stored" not in told:
                source = proxy_of_told(self.link, told)._source
                checkpoints.save(source, source.snapshot(), cut=True)

    def statistics(self) -> dict[str, Any]:
        """Return what the catalogue counts."""
        counts: dict[str, Any] = self.link.call("facts")["counts"]
        return counts

    def records(self, name: str | None = None) -> Any:
        """Records tell of memory and processes of one machine.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            "records are of hosts; of a cluster tell manager.statistics(), manager.client.scheduler_info() and its page"
        )

    def describe(self) -> str:
        """List the arrays."""
        lines = [
            f"{', '.join(one['names']) or one['ident']}: {dtype_from_wire(one['dtype'])} {tuple(one['shape'])}, "
            f"{'x'.join(map(str, one['chunks'])) or 1} chunks, version {one['version']}"
            for one in self.link.call("facts")["arrays"]
        ]
        return "\n".join(lines)

    def stop(self) -> None:
        """End the cluster, for everybody."""
        self.link.check_writable()
        self.link.client.shutdown()


def _creator_of(function: Any) -> str | None:
    """The creator that a registered function of NumPy's is."""
    return next((name for known, name in CREATOR_OF.items() if known is function), None)


def _fitting(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array that has been found under a name, if it is of the form that was asked for.

    Raises
    ------
    ReferentExistsError
    """
    if array.shape != shape or array.dtype != dtype:
        raise ReferentExistsError(
            f"the array named {name!r} is {array.dtype} of shape {array.shape}, and not {dtype} of shape {shape}"
        )
    return array
