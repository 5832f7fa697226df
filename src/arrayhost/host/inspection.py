"""Records of what a host holds: for `ls`, `show`, `top`, metrics, and programs that ask."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from arrayhost.core.records import ArrayRecord, ArrayStatistics, HolderRecord
from arrayhost.evaluation.hosted import row
from arrayhost.host.service import LOCAL_HOLDER
from arrayhost.sync.inspection import lock_record

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from arrayhost.core.layout import Layout
    from arrayhost.core.records import Creator
    from arrayhost.host.store import ArrayReferent, Store

__all__ = ["array_records", "named_record"]


def array_records(store: Store, client_of: Callable[[Hashable], Creator | None]) -> list[ArrayRecord]:
    """Describe every array, in the order of creation.

    Parameters
    ----------
    client_of : callable
        Returns the process behind a lease's holder; None if it is none.
    """
    names = store.names.by_ident()
    return [
        _record(store, referent, referent.layout, names.get(referent.ident, ()), client_of)
        for referent in store.arrays()
    ]


def named_record(store: Store, name: str, client_of: Callable[[Hashable], Creator | None]) -> ArrayRecord:
    """Describe the array, or the view of one, that a name is bound to.

    Raises
    ------
    ReferentNotFoundError
    """
    operand = store.names.get(name)
    names = store.names.by_ident().get(operand.referent.ident, [name])
    return _record(store, operand.referent, operand.layout, names, client_of)


def _record(
    store: Store,
    referent: ArrayReferent,
    layout: Layout,
    names: Iterable[str],
    client_of: Callable[[Hashable], Creator | None],
) -> ArrayRecord:
    return ArrayRecord(
        names=tuple(names),
        shape=layout.shape,
        dtype=str(layout.dtype),
        order=_order(layout),
        nbytes=layout.nbytes,
        segment_bytes=referent.mapping.n_bytes,
        statistics=ArrayStatistics(*row(referent.guard)),
        lock=lock_record(referent.guard),
        holders=tuple(_holders(store, referent.ident, client_of)),
        attrs=referent.attrs,
        created=referent.created,
        creator=referent.creator,
    )


def _holders(store: Store, ident: int, client_of: Callable[[Hashable], Creator | None]) -> Sequence[HolderRecord]:
    with store.lock:
        counts = store.leases.counts(ident)
    found = []
    for holder, count in counts.items():
        client = client_of(holder)
        if client is not None:
            found.append(HolderRecord(client.pid, client.program, count))
        elif holder == LOCAL_HOLDER:
            found.append(HolderRecord(os.getpid(), "the host itself", count))
        elif isinstance(holder, tuple) and holder[0] == "fork":
            # Its pid is known once it connects; until then a pipe speaks for it.
            found.append(HolderRecord(0, "a forked process that has not connected yet", count))
    return sorted(found, key=lambda one: one.pid)


def _order(layout: Layout) -> str:
    for order in ("C", "F"):
        if layout.strides == type(layout).contiguous(layout.shape, layout.dtype, order).strides:
            return order
    return ""
