"""Proxies in pickles: a handle, and what its receiver needs to find the way back to the host.

A key travels only to a process that is being started, with its arguments, as multiprocessing's own proxies do it: that
pickle goes through a pipe of the two. Everybody else has to have the key: from `connect`, from ``ARRAYHOST_KEY_FILE``,
or as a process of the same program.
"""

from __future__ import annotations

import ssl
from multiprocessing.context import get_spawning_popen
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]  # missing in the stubs
from typing import TYPE_CHECKING, Any

from arrayhost.client import finding
from arrayhost.client.returning import found_by_name
from arrayhost.errors import HostGoneError
from arrayhost.wire.codec import pack_handle, unpack_handle
from arrayhost.wire.hello import READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.client.array import HostedArray
    from arrayhost.client.links import Link, Source
    from arrayhost.core.layout import Layout

__all__ = ["Origin", "access", "origin", "reduced", "restored", "way_back"]

# Address and identity of a host, and perhaps how to connect to it: further arguments of `find_link`.
Origin = tuple[Any, ...]


def access(link: Link) -> dict[str, Any]:
    """How to connect as `link` is connected: arguments of `session_for`; nothing in the usual case."""
    known: dict[str, Any] = {} if link.mode == READ_WRITE else {"mode": link.mode}
    if get_spawning_popen() is not None:
        key, tls = link.credentials
        if key is not None:
            known["authkey"] = AuthenticationString(key)
        if tls is not None and not isinstance(tls, ssl.SSLContext):
            known["tls"] = tls
    return known


def origin(link: Link) -> Origin:
    """What a pickle says of the host."""
    known = access(link)
    if link.elsewhere:
        known["elsewhere"] = link.elsewhere
    return (link.address, link.host_id, known) if known else (link.address, link.host_id)


def way_back(where: Origin, wanted: bytes = b"") -> Any:
    """Return the receiver's link to the host that a pickle names; for `wanted` see `Session.open`.

    Raises
    ------
    HostGoneError, NotAuthorizedError
    """
    address, host_id, *known = where
    return finding.find_link(address, host_id, wanted, **(known[0] if known else {}))


def reduced(proxy: HostedArray, rebuild: Callable[..., Any]) -> tuple[Any, ...]:
    """What ``proxy.__reduce__`` returns: a call of `rebuild` with the arguments of `restored`."""
    source, layout = proxy._source, proxy.layout
    source.export()
    name: tuple[Any, ...] = ()
    if source.named is not None:
        text, named = source.named
        name = (text, b"" if named == layout else pack_handle(source.handle_for(named)))
    return rebuild, (origin(source.link), pack_handle(source.handle_for(layout)), *name)


def restored(where: Origin, packed: bytes, name: str = "", named: bytes = b"") -> tuple[Source, Layout]:
    """Find the array that a pickle names, and the place of the view in it.

    Parameters
    ----------
    packed : bytes
        The handle of the view.
    name : str
        By which the sender had found the array; by that it is found again if its host was started anew meanwhile. Not
        if the host can be reached from other machines: the receiver may be one, whose own host is another one.
    named : bytes
        The handle of the view that the name stands for; empty if it is the same.

    Raises
    ------
    HostGoneError
        The host has ended, and none is in its place or the array had no name.
    StaleProxyError
        The array has been freed; or the host in the old one's place has none of that name, shape and dtype.
    NotAuthorizedError
    """
    layout = unpack_handle(packed).layout
    whole = unpack_handle(named).layout if named else layout
    try:
        source = way_back(where, packed).attach(packed)
    except HostGoneError:
        address, known = where[0], where[2] if len(where) > 2 else {}
        if not name or "elsewhere" in known:
            raise
        session = finding.session_for(address, **known)
        return found_by_name(session, name, whole, layout)
    if name and source.named is None:
        source.named = (name, whole)
    return source, layout
