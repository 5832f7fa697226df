"""Locks that a host holds for a client that cannot reach them itself: one over the network.

They are leases of its connection: when that ends, however it does, they end, and what was not written back is void.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import ProtocolError
from arrayhost.evaluation.hosted import row
from arrayhost.sync.filelocks import EXCLUSIVE, SHARED

if TYPE_CHECKING:
    import numpy.typing as npt

    from arrayhost.host.store import ArrayReferent
    from arrayhost.sync.guards import Hold

__all__ = ["HeldLocks"]


class HeldLocks:
    """The locks of one connection. Safety: the connection's thread only, which owns them."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[ArrayReferent, Hold]] = {}

    def take(self, referent: ArrayReferent, mode: Any, timeout: Any) -> list[Any]:
        """Wait for an array's lock; return its row of the control table, as `row`.

        Raises
        ------
        LockTimeoutError, StaleProxyError
        """
        if mode not in (EXCLUSIVE, SHARED) or not isinstance(timeout, int | float) or referent.ident in self._held:
            raise ProtocolError("no lock of this kind")
        what = "exclusive lock" if mode == EXCLUSIVE else "shared lock"
        hold = referent.guard.acquire(mode, float(timeout), what)
        self._held[referent.ident] = (referent, hold)
        return row(referent.guard)

    def values(self, ident: Any) -> npt.NDArray[np.uint8]:
        """Return the bytes of a locked array: the memory itself, which holds still."""
        referent, _ = self._find(ident)
        return referent.mapping.reader.view()

    def give_back(self, ident: Any, values: Any, *, mended: bool) -> None:
        """Free a lock.

        Parameters
        ----------
        values : ndarray of uint8 or None
            What the whole array is to be from now on.
        mended : bool
            Whether its torn mark goes.
        """
        referent, hold = self._find(ident)
        try:
            if (values is not None or mended) and hold.mode != EXCLUSIVE:
                raise ProtocolError("a write under a shared lock")
            if values is not None:
                self._write(referent, hold, values)
            if mended:
                referent.guard.mend()
        finally:
            del self._held[ident]
            hold.release()

    def _write(self, referent: ArrayReferent, hold: Hold, values: Any) -> None:
        target = referent.mapping.writer
        if not isinstance(values, np.ndarray) or (values.dtype, values.shape) != (target.dtype, target.shape):
            raise ProtocolError("what is written back is not of the array's size")
        hold.begin_write()
        try:
            target[...] = values
        finally:
            hold.end_write()

    def end(self) -> None:
        """Free everything: the connection has ended."""
        held, self._held = self._held, {}
        for _, hold in held.values():
            hold.free()

    def _find(self, ident: Any) -> tuple[ArrayReferent, Hold]:
        try:
            return self._held[ident]
        except (KeyError, TypeError):
            raise ProtocolError("a lock that this connection does not hold") from None
