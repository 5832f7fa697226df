"""`HostedObject`: the proxy of an instance of a registered class, or of anything else that is no array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.client import session as sessions
from arrayhost.client.links import mode_of
from arrayhost.core.handles import ObjectHandle
from arrayhost.wire.hello import READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.client.links import Lease, Link

__all__ = ["HostedObject"]

_OWN = frozenset(["_arrayhost_handle", "_arrayhost_lease"])


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

    def _callmethod(self, methodname: str, args: Sequence[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Call an exposed method in the host.

        Raises
        ------
        AttributeError
            It is not exposed.
        Exception
            What the method raised, with the host's traceback as a note.
        """
        return self._arrayhost_lease.link.call(self._arrayhost_handle, methodname, args, kwds or {})

    def _getvalue(self) -> Any:
        """Return a copy of the object itself, which must pickle."""
        return self._callmethod("#GETVALUE")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "_arrayhost_handle" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        handle = self._arrayhost_handle
        if name in handle.methods:
            return _bound(self, name)
        return self._callmethod("__getattribute__", (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN or name.startswith("_"):
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
        return _from_handle, (lease.link.address, lease.link.host_id, parts, proxytype, *mode_of(lease.link))

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


def _class_for(handle: ObjectHandle, proxytype: Any) -> type[HostedObject]:
    """Make the proxy class of a type: special methods are looked up on classes, so they must stand there."""
    key = (handle.typeid, handle.methods, proxytype)
    found = _classes.get(key)
    if found is None:
        bases: tuple[type, ...] = (HostedObject,)
        if isinstance(proxytype, type) and proxytype is not HostedObject:
            # The user's own proxy class, usually a BaseProxy: its methods stay, our way to the host comes first.
            bases = (proxytype,) if issubclass(proxytype, HostedObject) else (HostedObject, proxytype)
        special = {
            name: _special(name)
            for name in handle.methods
            if name.startswith("__") and name.endswith("__") and not any(name in vars(base) for base in bases)
        }
        body = {**special, "_arrayhost_proxytype": proxytype, "__module__": HostedObject.__module__}
        if bases[0] is HostedObject and len(bases) == 2:
            body.update(_users_own(bases[1]))
        found = type(handle.typeid.strip("#") or "HostedObject", bases, body)
        _classes[key] = found
    return found


def _users_own(proxytype: type) -> dict[str, Any]:
    """What a user's proxy class defines beyond the standard library's base class, which must win over ours."""
    own: dict[str, Any] = {}
    for cls in reversed(proxytype.__mro__):
        if cls.__module__ in ("builtins", "multiprocessing.managers"):
            continue
        own.update({name: value for name, value in vars(cls).items() if callable(value) or isinstance(value, property)})
    return {name: value for name, value in own.items() if name not in ("__init__", "__reduce__", "__new__")}


def _special(name: str) -> Callable[..., Any]:
    def method(self: HostedObject, *args: Any, **kwargs: Any) -> Any:
        return self._callmethod(name, args, kwargs)

    method.__name__ = name
    return method


def bind(lease: Lease, handle: ObjectHandle, proxytype: Any = None) -> HostedObject:
    """Make the proxy of a leased object."""
    if proxytype is not None and not isinstance(proxytype, type):
        proxytype = None
    proxy: HostedObject = object.__new__(_class_for(handle, proxytype))
    object.__setattr__(proxy, "_arrayhost_handle", handle)
    object.__setattr__(proxy, "_arrayhost_lease", lease)
    return proxy


def _from_handle(address: str, host_id: bytes, parts: Any, proxytype: Any, mode: str = READ_WRITE) -> HostedObject:
    """Unpickle: find or make the way to the host, and lease the object."""
    link: Any = sessions.find_link(address, host_id, mode=mode)
    handle = ObjectHandle(*parts)
    return bind(link.attach_object(handle), handle, proxytype)


def _handle(proxy: HostedObject, link: Link, *, by_value: bool) -> ObjectHandle | None:
    """What stands for an object in a request: its handle, or None for its pickle if another host owns it."""
    own = proxy._arrayhost_lease.link.host_id == link.host_id
    return proxy._arrayhost_handle if own else None


sessions.register_proxies(ObjectHandle, bind, HostedObject, _handle)
