"""What a proxy needs from wherever its host is: the link's contract, and the mapped arrays that links hand out."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

from arrayhost.core.handles import ArrayHandle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.core.handles import ObjectHandle
    from arrayhost.core.layout import Layout
    from arrayhost.evaluation.operations import Operation
    from arrayhost.memory.segments import Mapping as SegmentMapping
    from arrayhost.sync.guards import Guard

__all__ = ["Lease", "Link", "Source"]


class Link(Protocol):
    """A way to a host: a session over a socket, or a direct call inside the host itself."""

    @property
    def address(self) -> str:
        """Where the host listens."""

    @property
    def host_id(self) -> bytes:
        """Which host it is, across changes of address."""

    @property
    def lock_timeout(self) -> float:
        """Seconds that its users wait for a lock by default."""

    def evaluate(self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate an operation in the host; proxies may stand anywhere in the arguments."""

    def set_item(self, target: Any, index: Any, value: Any) -> None:
        """Carry out ``target[index] = value`` in the host, for a proxy `target`."""

    def snapshot(self, target: Any) -> npt.NDArray[Any]:
        """Have the host copy a proxy's array under its lock."""

    def call(self, handle: ObjectHandle, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of a hosted object."""

    def export(self, ident: int) -> None:
        """Tell the host that a handle of the referent is being pickled."""

    def released(self, ident: int, count: int) -> None:
        """Give leases back; from finalizers, so without waiting or locking."""


class Lease:
    """The leases that one process has of one referent; ends with the last proxy.

    Attributes
    ----------
    ident : int
    count : list of int
        One number: leases granted so far. Shared with the finalizer, which must not know the object.
    """

    __slots__ = ("__weakref__", "count", "exported", "ident", "link")

    def __init__(self, link: Link, ident: int) -> None:
        self.link = link
        self.ident = ident
        self.count = [0]
        self.exported = False
        weakref.finalize(self, _release, link, ident, self.count).atexit = False

    def export(self) -> None:
        """Make sure that the referent outlives its leases for as long as a pickled handle may need."""
        if not self.exported:
            self.link.export(self.ident)
            self.exported = True


class Source(Lease):
    """One hosted array as this process has it mapped; all proxies of the array and its views share it.

    Attributes
    ----------
    guard : Guard
    mapping : SegmentMapping
    whole : Layout or None
        The whole array's place, where this process has learned it.
    """

    __slots__ = ("guard", "mapping", "whole")

    def __init__(self, link: Link, ident: int, guard: Guard, mapping: SegmentMapping) -> None:
        super().__init__(link, ident)
        self.guard = guard
        self.mapping = mapping
        self.whole: Layout | None = None

    def handle_for(self, layout: Layout) -> ArrayHandle:
        """Name a view of this array."""
        return ArrayHandle(self.ident, self.guard.slot, self.guard.generation, self.mapping.n_bytes, layout)


def _release(link: Link, ident: int, count: list[int]) -> None:
    if count[0]:
        link.released(ident, count[0])
