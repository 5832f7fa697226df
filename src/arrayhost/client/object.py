"""`HostedObject`: the proxy of an instance of a registered class, or of anything else that is no array."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from arrayhost.client.passing import origin, way_back
from arrayhost.client.proxies import register_proxies
from arrayhost.core.handles import ObjectHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.client.links import Lease, Link
    from arrayhost.client.passing import Origin

    ProxyTypes = Mapping[str, tuple[Any, type | None]]

__all__ = ["HostedObject"]

# Special methods by which Python works on the proxy itself. An object's own can be called through `_callmethod`.
_OF_THE_PROXY = frozenset(
    ["__class__", "__del__", "__delattr__", "__dir__", "__getattr__", "__getattribute__", "__getstate__", "__init__",
     "__init_subclass__", "__new__", "__reduce__", "__reduce_ex__", "__setattr__", "__setstate__", "__subclasshook__"]
)  # fmt: skip


class HostedObject:
    """A proxy of an object that lives in a host.

    Public methods run in the host, each client thread's in a thread of its own there; public attributes are read and
    set there. Results come back by value, arrays hosted there as proxies.

    Notes
    -----
    Cost: one round trip for each call and each attribute. Safety: any thread; as safe against concurrent calls as
    the class itself (``register(..., serialize=True)`` runs them one at a time). Pickles to a handle.
    """

    _arrayhost_handle: ObjectHandle
    _arrayhost_lease: Lease
    # The types that the manager knows it by: by them, what methods return gets its proxy class.
    _arrayhost_types: ProxyTypes = {}  # noqa: RUF012  # never changed

    def __init__(self, *args: Any, **kwds: Any) -> None:
        """Take what the standard library gives a proxy class; everything is set already. See `bind`."""

    def _callmethod(self, methodname: str, args: Sequence[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Call an exposed method in the host.

        Raises
        ------
        AttributeError
            It is not exposed.
        Exception
            What the method raised, with the host's traceback as a note.
        """
        result = self._arrayhost_lease.link.call(self._arrayhost_handle, methodname, args, kwds or {})
        return typed(result, self._arrayhost_types)

    def _getvalue(self) -> Any:
        """Return a copy of the object itself, which must pickle."""
        return self._callmethod("#GETVALUE")

    def __getattr__(self, name: str) -> Any:
        handle = self.__dict__.get("_arrayhost_handle")
        if handle is not None and name in handle.methods and not name.startswith("__"):
            return _bound(self, name)
        if handle is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._callmethod("__getattribute__", (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self._callmethod("__setattr__", (name, value))

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            object.__delattr__(self, name)
        else:
            self._callmethod("__delattr__", (name,))

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._arrayhost_handle.methods})

    def __reduce__(self) -> tuple[Any, ...]:
        lease = self._arrayhost_lease
        lease.export()
        handle = self._arrayhost_handle
        proxytype = type(self).__dict__.get("_arrayhost_proxytype")
        parts = (handle.ident, handle.typeid, handle.methods, handle.attributes)
        return _from_handle, (origin(lease.link), parts, proxytype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._getvalue()

    def __str__(self) -> str:
        return str(self._callmethod("__repr__"))

    def __repr__(self) -> str:
        handle = self._arrayhost_handle
        return f"<HostedObject {handle.typeid!r} at {self._arrayhost_lease.link.address}>"


def _bound(proxy: HostedObject, name: str) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return proxy._callmethod(name, args, kwargs)

    method.__name__ = name
    return method


_classes: dict[tuple[str, tuple[str, ...], Any], type[HostedObject]] = {}


def _class_for(handle: ObjectHandle, proxytype: type | None) -> type[HostedObject]:
    """Make the proxy class of a type: special methods are looked up on classes, so they must stand there."""
    key = (handle.typeid, handle.methods, proxytype)
    found = _classes.get(key)
    if found is None:
        bases = (HostedObject,) if proxytype is None else _bases(proxytype)
        special = {name: _special(name) for name in handle.methods if _is_due(name, proxytype)}
        body = {**special, "_arrayhost_proxytype": proxytype, "__module__": HostedObject.__module__}
        found = _classes[key] = type(handle.typeid.strip("#") or "HostedObject", bases, body)
    return found


def _is_due(name: str, proxytype: type | None) -> bool:
    """Whether a proxy class gets an exposed special method that the user's class lacks."""
    if not (name.startswith("__") and name.endswith("__")) or name in _OF_THE_PROXY:
        return False
    return proxytype is None or getattr(proxytype, name, None) is getattr(object, name, None)


def _bases(proxytype: type) -> tuple[type, ...]:
    """The bases of a proxy class: the user's class comes first, our way to the host instead of the standard one."""
    if issubclass(proxytype, HostedObject):
        return (proxytype,)
    managers = sys.modules.get("multiprocessing.managers")
    if managers is None or not issubclass(proxytype, managers.BaseProxy):
        return (proxytype, HostedObject)
    standard = _standard_proxy()
    return (standard,) if proxytype is managers.BaseProxy else (proxytype, standard)


@functools.cache
def _standard_proxy() -> type:
    """Make what stands between a user's proxy class and the BaseProxy that it derives from.

    Derived from both, it comes after the one and before the other in the order in which methods are looked up, also
    by ``super()``.
    """
    from multiprocessing.managers import BaseProxy, Token  # takes some milliseconds, and who gets here has it loaded

    class StandardProxy(HostedObject, BaseProxy):  # type: ignore[misc]  # ours is called __deepcopy__, too
        # As in the standard library: what a proxy class of the user's sets stays with the proxy.
        def __setattr__(self, name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        def __delattr__(self, name: str) -> None:
            object.__delattr__(self, name)

        @property
        def _token(self) -> Token:
            handle = self._arrayhost_handle
            return Token(handle.typeid, self._arrayhost_lease.link.address, self._id)

        @property
        def _id(self) -> str:
            return format(self._arrayhost_handle.ident, "x")

    return StandardProxy


def _special(name: str) -> Callable[..., Any]:
    def method(self: HostedObject, *args: Any, **kwargs: Any) -> Any:
        return self._callmethod(name, args, kwargs)

    method.__name__ = name
    return method


def bind(lease: Lease, handle: ObjectHandle, proxytype: type | None = None) -> HostedObject:
    """Make the proxy of a leased object."""
    proxy: HostedObject = object.__new__(_class_for(handle, proxytype))
    object.__setattr__(proxy, "_arrayhost_handle", handle)
    object.__setattr__(proxy, "_arrayhost_lease", lease)
    if type(proxy).__init__ is not HostedObject.__init__:
        # The arguments with which the standard library makes proxies.
        token = getattr(proxy, "_token", None)
        type(proxy).__init__(proxy, token, "pickle", authkey=None, exposed=handle.methods)
    return proxy


def typed(result: Any, types: ProxyTypes) -> Any:
    """Give a proxy of an object the class that was registered for its type; return anything else as it is."""
    if not isinstance(result, HostedObject):
        return result
    proxytype = types.get(result._arrayhost_handle.typeid, (None, None))[1]
    if proxytype is not None:
        result = bind(result._arrayhost_lease, result._arrayhost_handle, proxytype)
    object.__setattr__(result, "_arrayhost_types", types)
    return result


def _from_handle(where: Origin, parts: Any, proxytype: Any) -> HostedObject:
    """Unpickle: find or make the way to the host, and lease the object."""
    link = way_back(where)
    handle = ObjectHandle(*parts)
    return bind(link.attach_object(handle), handle, proxytype)


def _handle(proxy: HostedObject, link: Link, *, by_value: bool) -> ObjectHandle | None:
    """What stands for an object in a request: its handle, or None for its pickle if another host owns it."""
    own = proxy._arrayhost_lease.link.host_id == link.host_id
    return proxy._arrayhost_handle if own else None


register_proxies(ObjectHandle, bind, HostedObject, _handle)
