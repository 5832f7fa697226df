"""The names of a host's arrays: what each is bound to, bound and unbound in one step for everybody."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from arrayhost.errors import ReferentExistsError, ReferentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from arrayhost.host.store import Operand, Store

__all__ = ["NameTable"]

log = logging.getLogger(__name__)
_MAX_LISTED = 10


class NameTable:
    """Names and the views that they are bound to; each name holds a lease.

    Notes
    -----
    Safety: any thread, under the store's lock. Names have been checked by `core.names.check_name` already.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bound: dict[str, Operand] = {}

    def __len__(self) -> int:
        return len(self._bound)

    def __contains__(self, name: str) -> bool:
        return name in self._bound

    def put(self, name: str, operand: Operand, *, overwrite: bool) -> None:
        """Bind a name; what it named before stays for those who hold it.

        Raises
        ------
        ReferentExistsError
            The name is bound and `overwrite` is False.
        """
        store = self._store
        holder = ("name", name)
        with store.lock:
            before = self._bound.get(name)
            if before is not None and not overwrite:
                raise ReferentExistsError(exists(name, before))
            store.leases.grant(operand.referent.ident, holder)
            self._bound[name] = operand
        log.info("name %r given to array %d", name, operand.referent.ident)
        if before is not None:
            store.release(before.referent.ident, holder)

    def get(self, name: str) -> Operand:
        """Return what a name is bound to.

        Raises
        ------
        ReferentNotFoundError
        """
        operand = self._bound.get(name)
        if operand is None:
            known = self.listed()
            others = f" and {len(known) - _MAX_LISTED} others" if len(known) > _MAX_LISTED else ""
            raise ReferentNotFoundError(
                f"no array named {name!r}; names here: {', '.join(known[:_MAX_LISTED]) or 'none'}{others}"
            )
        return operand

    def lease(self, name: str, holder: Hashable) -> Operand:
        """As `get`, with a lease for `holder`: without one the name could change over and the array go meanwhile."""
        with self._store.lock:
            operand = self.get(name)
            self._store.leases.grant(operand.referent.ident, holder)
            return operand

    def delete(self, name: str) -> None:
        """Unbind a name.

        Raises
        ------
        ReferentNotFoundError
        """
        with self._store.lock:
            operand = self.get(name)
            del self._bound[name]
        log.info("name %r taken from array %d", name, operand.referent.ident)
        self._store.release(operand.referent.ident, ("name", name))

    def listed(self) -> list[str]:
        """All names, sorted."""
        with self._store.lock:
            return sorted(self._bound)

    def by_ident(self) -> dict[int, list[str]]:
        """The names of each array that has any, sorted."""
        found: dict[int, list[str]] = {}
        with self._store.lock:
            for name in sorted(self._bound):
                found.setdefault(self._bound[name].referent.ident, []).append(name)
        return found

    def clear(self) -> None:
        """Forget all names; for a host that ends."""
        self._bound.clear()


def exists(name: str, operand: Operand) -> str:
    """Say that a name is taken, and by what."""
    layout = operand.layout
    return (
        f"there is an array named {name!r} already, {layout.dtype} of shape {layout.shape}; "
        "take another name, or replace it: manager.put(..., overwrite=True)"
    )
