"""How proxies are made from handles, and what stands for them on the wire; told by the modules that define them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.client.links import Link

__all__ = ["is_proxy", "make_proxy", "no_proxies", "reference", "register_proxies"]

_makers: dict[type, Callable[[Any, Any], Any]] = {}
_references: dict[type, Callable[..., Any]] = {}


def register_proxies(
    handle_type: type, make: Callable[[Any, Any], Any], proxy_type: type, refer: Callable[..., Any]
) -> None:
    """Tell how proxies of one kind are made from handles, and what stands for them on the wire."""
    _makers[handle_type] = make
    _references[proxy_type] = refer


def make_proxy(origin: Any, what: Any) -> Any:
    """Make the proxy for a layout in a source, or for an object's handle."""
    return _makers[type(what)](origin, what)


def is_proxy(value: Any) -> bool:
    """Whether something else stands for a value on the wire."""
    return any(kind in _references for kind in type(value).__mro__)


def reference(value: Any, link: Link, *, by_value: bool) -> Any:
    """What stands for a proxy in a request over a link; None for anything else."""
    for kind in type(value).__mro__:
        refer = _references.get(kind)
        if refer is not None:
            return refer(value, link, by_value=by_value)
    return None


def no_proxies(*_: Any) -> Any:
    """Refuse a handle.

    Raises
    ------
    ProtocolError
    """
    raise ProtocolError("a handle where none was due")
