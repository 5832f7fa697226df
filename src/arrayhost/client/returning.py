"""Proxies of named arrays after their host has ended: moved over to the host that has come in its place.

A proxy that was found by name remembers it. When its host has ended and another at the same address has an array of
that name, of the same shape and dtype, the proxy and its views stand for that array from then on. Nothing is done
twice: only what certainly never reached the old host is asked again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from arrayhost.client import finding
from arrayhost.errors import HostGoneError, ReferentNotFoundError, StaleProxyError
from arrayhost.wire.frames import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arrayhost.client.evaluating import ArrayProxy
    from arrayhost.client.links import Source
    from arrayhost.client.session import Session
    from arrayhost.core.layout import Layout

__all__ = ["asked", "follow", "found_by_name", "move_over", "remember"]

T = TypeVar("T")


def remember(name: str, proxy: Any) -> Any:
    """Let a proxy, and the views that will be made of it, know the name it was found by."""
    proxy._source.named = (name, proxy.layout)
    return proxy


def asked(proxies: Iterable[ArrayProxy], ask: Callable[[], T]) -> T:
    """Ask a host; if it turns out to have ended, move proxies of named arrays over and ask once more.

    Raises
    ------
    HostGoneError
        There is no other host, the arrays have no names, or the request may have been carried out before the end.
    StaleProxyError
        The other host has no such array.
    """
    try:
        return ask()
    except HostGoneError as error:
        if not error.nothing_sent:
            raise
        moved = [move_over(proxy) for proxy in proxies]
        if True not in moved:
            raise
    return ask()


def follow(proxy: ArrayProxy, *, need_host: bool = False) -> None:
    """Before a read or a section: move a proxy over if its host has ended and another has come.

    Where none has, the memory that the old host left goes on to be read; with `need_host` that is an error, because
    what is written there reaches nobody who comes later.
    """
    if proxy._source.named is None or not proxy._source.link.seems_ended():
        return
    try:
        move_over(proxy)
    except HostGoneError:
        if need_host:
            raise


def move_over(proxy: ArrayProxy) -> bool:
    """Make a proxy stand for the array of its name in the host that is at its address now; False if nothing changed.

    Raises
    ------
    HostGoneError
        There is none.
    StaleProxyError
        It has no array of that name, shape and dtype.
    """
    source = proxy._source
    if source.named is None or not source.link.seems_ended():
        return False
    (name, layout), address = source.named, source.link.address
    session = finding.session_for(address, mode=source.link.mode)
    if session.host_id == source.link.host_id:
        return False
    proxy._move(*found_by_name(session, name, layout, proxy.layout))
    return True


def found_by_name(session: Session, name: str, named: Layout, view: Layout) -> tuple[Source, Layout]:
    """Find an array in the host that has come in the place of the array's own.

    Parameters
    ----------
    named, view : Layout
        In the old array: what the name stood for, and the view that is wanted.

    Returns
    -------
    source : Source
    layout : Layout
        The same view of the new array.

    Raises
    ------
    StaleProxyError
        There is none of that name, shape and dtype.
    """
    try:
        found = session.request(Kind.GET_NAME, name)
    except ReferentNotFoundError as error:
        raise StaleProxyError(
            f"the host at {session.address} was started anew and has no array named {name!r}: what this proxy stood "
            "for is gone"
        ) from error
    new: Any = found.layout
    if (new.shape, new.strides, new.dtype) != (named.shape, named.strides, named.dtype):
        raise StaleProxyError(
            f"the host at {session.address} was started anew, and its array named {name!r} is {new.dtype} of shape "
            f"{new.shape} where this proxy's was {named.dtype} of shape {named.shape}; look it up anew"
        )
    remember(name, found)
    return found._source, replace(view, offset=view.offset - named.offset + new.offset)
