"""The service: what a host does for a request, in terms of Python values.

It knows neither sockets nor frames: the server decodes and calls, the in-process link of the host's own code calls
directly.
"""

from __future__ import annotations

import os
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from arrayhost.core.attributes import check_attributes, check_size
from arrayhost.core.handles import Written
from arrayhost.core.layout import Layout, check_mappable
from arrayhost.core.names import check_name
from arrayhost.errors import ReferentExistsError, ReferentNotFoundError
from arrayhost.evaluation.reading import snapshot
from arrayhost.evaluation.updates import apply_function
from arrayhost.host import execution, objects
from arrayhost.host.creators import CONSTANTS, host_copy
from arrayhost.host.names import exists
from arrayhost.host.objects import ITERATOR, ITERATOR_METHODS, Registration
from arrayhost.host.store import ObjectReferent, Operand, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.evaluation.operations import Operation

__all__ = ["BUILTIN_TYPES", "LOCAL_HOLDER", "ProxyFactory", "Service"]

# Holds what proxies inside the host itself lease.
LOCAL_HOLDER = "host"

# A name may be given and taken away by others between two looks at it; not for ever.
_ATTEMPTS = 100

# What every manager can create, besides what was registered; the sign keeps them apart from users' names.
BUILTIN_TYPES: dict[str, Callable[..., Any]] = {
    "#empty": np.empty,
    "#zeros": np.zeros,
    "#ones": np.ones,
    "#full": np.full,
    "#array": np.array,
    "#asarray": np.asarray,
    "#arange": np.arange,
    "#linspace": np.linspace,
}


class ProxyFactory(Protocol):
    """How code that runs in the host sees hosted things: through proxies, like everybody."""

    def proxy(self, referent: Operand | ObjectReferent) -> Any:
        """Make a proxy for use inside the host."""

    def referent(self, value: Any) -> Operand | ObjectReferent | None:
        """Return what a proxy made here stands for; None if `value` is none."""


class Service:
    """A host's abilities.

    Parameters
    ----------
    store : Store
    registry : dict of str to Registration
    proxies : ProxyFactory
    lock_timeout : float
        Seconds that a write waits for a section to end.
    """

    def __init__(
        self,
        store: Store,
        registry: Mapping[str, Registration],
        proxies: ProxyFactory,
        *,
        lock_timeout: float = 60.0,
    ) -> None:
        self.store = store
        self.registry = dict(registry)
        self.proxies = proxies
        self.lock_timeout = lock_timeout
        # Filled by finalizers, which may run anywhere and so must not lock; emptied by the server's loop.
        self.released_here: deque[tuple[int, int]] = deque()

    # -- creation ------------------------------------------------------------------------------------------------

    def create(
        self,
        typeid: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        holder: Hashable,
        buffers: tuple[Sequence[npt.NDArray[np.uint8]], Sequence[int]] = ((), ()),
    ) -> Operand | ObjectReferent:
        """Call a registered function and host what it returns.

        Parameters
        ----------
        holder : hashable
            Given the first lease.
        buffers : tuple
            The request's attachments and their descriptors: an array among them is adopted as it is.
        """
        function = BUILTIN_TYPES.get(typeid)
        if function is not None:
            return self._host(
                self._call(function, args, kwargs, holder), typeid, Registration(function), holder, buffers
            )
        registration = objects.find_registration(self.registry, typeid)
        if registration.callable is None:
            if len(args) != 1 or kwargs:
                raise ValueError(f"type {typeid!r} was registered without a callable: it takes the object to host")
            return self._host(args[0], typeid, registration, holder, buffers)
        result = self._call(registration.callable, args, kwargs, holder)
        return self._host(result, typeid, registration, holder, buffers)

    def run(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], holder: Hashable
    ) -> Operand | ObjectReferent:
        """Call a function of the caller's and host what it returns."""
        if not callable(function):
            raise TypeError(f"run() needs a function, not a {type(function).__name__}")
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return self._host(self._call(function, args, kwargs, holder), name, Registration(function), holder)

    def _call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], holder: Hashable
    ) -> Any:
        make = CONSTANTS.get(function) if getattr(function, "__hash__", None) else None
        if make is None or kwargs.get("like") is not None:
            return function(*args, **kwargs)
        known = {key: value for key, value in kwargs.items() if key not in ("like", "device")}
        if kwargs.get("device") not in (None, "cpu"):
            return function(*args, **kwargs)  # NumPy has the error for it
        place, layout = make(*args, **known, places=self.store.places)
        return self.store.add_array(place, layout, holder)

    def _host(
        self,
        result: Any,
        typeid: str,
        registration: Registration,
        holder: Hashable,
        buffers: tuple[Sequence[npt.NDArray[np.uint8]], Sequence[int]] = ((), ()),
    ) -> Operand | ObjectReferent:
        """Host a function's result; what is hosted already stays what it is."""
        if isinstance(result, (Operand, ObjectReferent)):
            return result
        referent = self.proxies.referent(result)
        if referent is not None:
            self.store.grant(ident_of(referent), holder)
            return referent
        if type(result) is np.ndarray:
            place, layout = host_copy(result, *buffers, self.store.places)
            return self.store.add_array(place, layout, holder)
        exposed = registration.exposed
        return self.store.add_object(
            result,
            typeid,
            objects.public_methods(result) if exposed is None else tuple(exposed),
            holder,
            attributes=exposed is None,
            method_typeids=dict(registration.method_to_typeid),
            serialize=registration.serialize,
        )

    # -- use -----------------------------------------------------------------------------------------------------

    def call(self, ident: int, name: str, args: Sequence[Any], kwargs: dict[str, Any], holder: Hashable) -> Any:
        """Call a method of a hosted object; its result is hosted where `method_to_typeid` says so."""
        referent = self.store.find_object(ident)
        result = objects.call(referent, name, args, kwargs)
        typeid = referent.method_typeids.get(name)
        if typeid is not None:
            registration = objects.find_registration(self.registry, typeid)
            if registration.callable is not None:
                result = registration.callable(result)
            return self._host(result, typeid, registration, holder)
        if objects.is_itself(referent, name, result):
            return referent
        if objects.is_unpicklable_iterator(result):
            return self._host(result, ITERATOR, Registration(None, ITERATOR_METHODS), holder)
        return result

    def evaluate(self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate an operation on `Operand` arguments."""
        return execution.evaluate(operation, args, kwargs, self.lock_timeout)

    def apply(
        self, target: Operand, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any],
        timeout: float,
    ) -> Any:  # fmt: skip
        """Call a function of the caller's with a copy of an array, and write that back."""
        if not callable(function):
            raise TypeError(f"apply() needs a function, not a {type(function).__name__}")
        result = apply_function(target, function, args, dict(kwargs), timeout)
        return Written(0) if result is target else result

    def set_item(self, target: Operand, index: Any, value: Any) -> None:
        """Carry out ``target[index] = value``."""
        execution.set_item(target, index, value, self.lock_timeout)

    # -- names and attributes ------------------------------------------------------------------------------------

    def put_name(
        self,
        name: str,
        value: Any,
        holder: Hashable,
        buffers: tuple[Sequence[npt.NDArray[np.uint8]], Sequence[int]] = ((), ()),
        *,
        overwrite: bool = True,
    ) -> Operand:
        """Host an array under a name, and return it.

        Raises
        ------
        ReferentExistsError
            The name is taken and `overwrite` is False.
        """
        name = check_name(name)
        if not overwrite and name in self.store.names:
            raise ReferentExistsError(exists(name, self.store.names.get(name)))  # before any memory is taken
        if not isinstance(value, Operand):
            if self.store.disk is not None:
                return self._on_disk(name, np.asarray(value), holder, overwrite=overwrite)
            value = self._host(np.asarray(value), name, Registration(None), holder, buffers)
        if self.store.disk is not None:
            return self._on_disk(name, snapshot(value), holder, overwrite=overwrite, attrs=value.referent.attrs)
        self.store.names.put(name, value, overwrite=overwrite)
        return cast("Operand", value)

    def _on_disk(
        self,
        name: str,
        values: npt.NDArray[Any],
        holder: Hashable,
        *,
        overwrite: bool,
        attrs: Mapping[str, Any] = MappingProxyType({}),
    ) -> Operand:
        """Make an array a file of the host's directory, under its name."""
        check_mappable(values.dtype)
        order = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
        layout = Layout.contiguous(values.shape, values.dtype, order)

        def fill(target: npt.NDArray[Any]) -> None:
            target[...] = values

        return self._new_file(name, layout, order, fill, holder, overwrite=overwrite, attrs=attrs)

    def _new_file(
        self,
        name: str,
        layout: Layout,
        order: str,
        fill: Callable[[npt.NDArray[Any]], None],
        holder: Hashable,
        *,
        overwrite: bool,
        attrs: Mapping[str, Any] = MappingProxyType({}),
    ) -> Operand:
        store, disk = self.store, self.store.disk
        assert disk is not None
        with disk.lock:
            if not overwrite and name in store.names:
                raise ReferentExistsError(exists(name, store.names.get(name)))
            with disk.creating(name, layout, order, store.places, fill, attrs) as new:
                operand = store.add_array(new.place, layout, holder)
                operand.referent.attrs = dict(attrs)
                disk.describe(name, operand.referent, new)
            store.names.put(name, operand, overwrite=overwrite)
        return operand

    def delete_name(self, name: str) -> None:
        """Take a name away, with its file if there is one.

        Raises
        ------
        ReferentNotFoundError
        """
        if self.store.disk is None:
            self.store.names.delete(name)
            return
        with self.store.disk.lock:
            self.store.names.delete(name)
            self.store.disk.delete(name)

    def flush(self) -> None:
        """Make all named arrays durable; does nothing without a directory."""
        if self.store.disk is not None:
            self.store.disk.flush()

    def load(self) -> None:
        """Host every array of the directory under its name."""
        store, disk = self.store, self.store.disk
        if disk is None:
            return
        making, arrays, inodes = object(), {}, {}
        for name, place, layout in disk.found(store.places):
            operand = store.add_array(place, layout, making)
            store.names.put(name, operand, overwrite=False)
            arrays[name], inodes[name] = operand.referent, os.fstat(place.segment.fd).st_ino
        disk.restore(arrays, inodes)
        store.drop_holder(making)

    def create_name(
        self, name: str, shape: Any, dtype: Any, order: str, fill_value: Any, holder: Hashable, *, exist_ok: bool
    ) -> Operand:
        """Host a new array of one value under a name, or return the one of that shape and dtype that is there.

        Raises
        ------
        ReferentExistsError
            The name is taken, and not by such an array or `exist_ok` is False.
        """
        name = check_name(name)
        wanted = (np.broadcast_shapes(shape), np.dtype(dtype))
        for _ in range(_ATTEMPTS):
            if name in self.store.names:
                try:
                    return self._existing(name, wanted, holder, exist_ok=exist_ok)
                except ReferentNotFoundError:
                    continue  # deleted in between
            try:
                made = self._make_named(name, wanted, order, fill_value, holder)
            except ReferentExistsError:
                if not exist_ok:
                    raise
                continue  # somebody else was quicker; what was made here goes with the request
            return made
        raise ReferentExistsError(f"the name {name!r} is given and taken away all the time; try again")

    def _make_named(
        self, name: str, wanted: tuple[Any, np.dtype[Any]], order: str, fill_value: Any, holder: Hashable
    ) -> Operand:
        shape, dtype = wanted
        if self.store.disk is None:
            made = self.create("#full", (shape, fill_value), {"dtype": dtype, "order": order}, holder)
            self.store.names.put(name, cast("Operand", made), overwrite=False)
            return cast("Operand", made)
        check_mappable(dtype)
        element = np.zeros((), dtype)
        element[...] = fill_value

        def fill(target: npt.NDArray[Any]) -> None:
            if element.tobytes().strip(b"\0"):
                target[...] = element

        layout = Layout.contiguous(shape, dtype, order)
        return self._new_file(name, layout, order, fill, holder, overwrite=False)

    def _existing(
        self, name: str, wanted: tuple[tuple[int, ...], np.dtype[Any]], holder: Hashable, *, exist_ok: bool
    ) -> Operand:
        operand = self.store.names.lease(name, holder)
        if exist_ok and (operand.layout.shape, operand.layout.dtype) == wanted:
            return operand
        raise ReferentExistsError(exists(name, operand))

    def attributes(
        self, operand: Operand, changes: Mapping[str, Any], removed: Sequence[str], mode: str
    ) -> dict[str, Any]:
        """Read an array's attributes, or change them in one step.

        Parameters
        ----------
        changes : dict
            New values.
        removed : sequence of str
            Taken away where they exist.
        mode : {"read", "update", "replace", "add"}
            Change nothing; set what is named; set that and drop all others; set only what is not there.

        Returns
        -------
        dict
            What there was before.

        Raises
        ------
        OSError
            The array is a file, and its attributes cannot be kept beside it; they are what they were.
        """
        changes = check_attributes(changes)
        referent, disk = operand.referent, self.store.disk
        if mode == "read":
            return dict(referent.attrs)
        with self.store.lock if disk is None else disk.attributes.lock:
            before = referent.attrs
            after = {} if mode == "replace" else {key: before[key] for key in before if key not in set(removed)}
            after = {**changes, **after} if mode == "add" else {**after, **changes}
            check_size(after)
            if disk is not None and after != before:
                disk.keep_attributes(referent, after)
            # Replaced as a whole: whoever is just sending the old mapping goes on with that.
            referent.attrs = after
        return before

    def release_soon(self, ident: int, count: int) -> None:
        """Note that a proxy inside the host died. Called from finalizers: takes no lock."""
        self.released_here.append((ident, count))

    def flush_released(self) -> None:
        """Release what `release_soon` noted."""
        while True:
            try:
                ident, count = self.released_here.popleft()
            except IndexError:
                return
            self.store.release(ident, LOCAL_HOLDER, count)


def ident_of(referent: Operand | ObjectReferent) -> int:
    """The id under which a referent's leases are kept."""
    return referent.referent.ident if isinstance(referent, Operand) else referent.ident
