"""The lease table: who keeps which referent alive, and when nobody does any more.

Pure bookkeeping: time comes in as an argument and what has to be freed goes out as a result. A *holder* is any
hashable: a client's session, a forked child that has not connected yet, a name. Leases are counted, because a grant
travels on one connection and its release on another: only the sum of the two is independent of their order.
Referents may belong to a *group*, which is the segment they lie in: a holder has it mapped while it holds any of them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["LeaseTable"]


class LeaseTable:
    """Leases of referents by holders.

    Not thread-safe: the host serialises calls.

    Parameters
    ----------
    handle_grace : float
        Seconds that a referent survives its last lease once a handle of it was pickled, since that handle may
        still be on its way.
    """

    def __init__(self, handle_grace: float) -> None:
        self.handle_grace = handle_grace
        self._by_referent: dict[int, Counter[Hashable]] = {}
        self._by_holder: dict[Hashable, set[int]] = {}
        self._groups: dict[int, Hashable] = {}
        self._by_group: Counter[tuple[Hashable, Hashable]] = Counter()
        self._exported: set[int] = set()
        self._expiry: dict[int, float] = {}
        self._queue: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return sum(len(holders) for holders in self._by_referent.values())

    def add(self, ident: int, group: Hashable = None) -> None:
        """Start to track a new referent; it has no lease yet and is not free until one ended."""
        self._by_referent[ident] = Counter()
        if group is not None:
            self._groups[ident] = group

    def grant(self, ident: int, holder: Hashable, count: int = 1) -> None:
        """Give `holder` leases of a referent.

        Raises
        ------
        KeyError
            No such referent.
        """
        holders = self._by_referent[ident]
        before = holders[holder]
        after = holders[holder] = before + count
        if after == 0:
            del holders[holder]
            self._unlist(ident, holder)
        else:
            self._by_holder.setdefault(holder, set()).add(ident)
        if (before > 0) != (after > 0):
            self._count_in_group(ident, holder, 1 if after > 0 else -1)
        self._expiry.pop(ident, None)

    def release(self, ident: int, holder: Hashable, count: int, now: float) -> bool:
        """Take leases back; True if the referent is to be freed now."""
        if ident not in self._by_referent:
            return False
        # A release may overtake the grant it answers; the count is then negative for a moment.
        self.grant(ident, holder, -count)
        return self._unheld(ident, now)

    def drop_holder(self, holder: Hashable, now: float) -> list[int]:
        """End every lease of a holder that died; return what is to be freed now."""
        idents = self._by_holder.pop(holder, set())
        for ident in idents:
            if self._by_referent[ident].pop(holder, 0) > 0:
                self._count_in_group(ident, holder, -1)
        return [ident for ident in sorted(idents) if self._unheld(ident, now)]

    def copy_holder(self, source: Hashable, target: Hashable) -> None:
        """Give `target` a lease of everything that `source` holds."""
        for ident in list(self._by_holder.get(source, ())):
            if self._by_referent[ident][source] > 0:
                self.grant(ident, target)

    def export(self, ident: int, now: float) -> None:
        """Note that a handle of the referent was pickled: it outlives its last lease by the grace."""
        if ident in self._by_referent:
            self._exported.add(ident)
            self._unheld(ident, now)

    def expire(self, now: float) -> list[int]:
        """Return the referents whose grace is over; they are to be freed now."""
        ended = []
        while self._queue and self._queue[0][0] <= now:
            when, ident = heapq.heappop(self._queue)
            if self._expiry.get(ident) == when:
                del self._expiry[ident]
                ended.append(ident)
        return ended

    def next_expiry(self) -> float | None:
        """Time of the next `expire` that may return something."""
        return self._queue[0][0] if self._queue else None

    def forget(self, ident: int) -> None:
        """Stop tracking a freed referent."""
        for holder, count in self._by_referent.pop(ident, Counter()).items():
            self._unlist(ident, holder)
            if count > 0:
                self._count_in_group(ident, holder, -1)
        self._groups.pop(ident, None)
        self._exported.discard(ident)
        self._expiry.pop(ident, None)

    def holders(self, ident: int) -> list[Hashable]:
        """Who holds leases of a referent."""
        return list(self._by_referent.get(ident, ()))

    def counts(self, ident: int) -> dict[Hashable, int]:
        """How many leases of a referent each of its holders has."""
        return dict(self._by_referent.get(ident, ()))

    def has(self, ident: int, holder: Hashable) -> bool:
        """Whether a holder holds a lease of a referent."""
        holders = self._by_referent.get(ident)
        return holders is not None and holders[holder] > 0

    def has_any(self, group: Hashable, holder: Hashable) -> bool:
        """Whether a holder holds a lease of any referent of a group."""
        return (holder, group) in self._by_group

    def holdings(self, holder: Hashable) -> Iterable[int]:
        """What a holder holds leases of."""
        return frozenset(self._by_holder.get(holder, ()))

    def _unlist(self, ident: int, holder: Hashable) -> None:
        idents = self._by_holder.get(holder)
        if idents is None:
            return
        idents.discard(ident)
        if not idents:  # names are holders too, and of those there may be ever new ones
            del self._by_holder[holder]

    def _count_in_group(self, ident: int, holder: Hashable, change: int) -> None:
        group = self._groups.get(ident)
        if group is None:
            return
        key = (holder, group)
        self._by_group[key] += change
        if not self._by_group[key]:
            del self._by_group[key]

    def _unheld(self, ident: int, now: float) -> bool:
        """True if to be freed; starts the grace where a handle may be on its way."""
        if self._by_referent[ident]:
            return False
        if ident not in self._exported:
            return True
        when = now + self.handle_grace
        self._expiry[ident] = when
        heapq.heappush(self._queue, (when, ident))
        return False
