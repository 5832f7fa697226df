"""What a proxy needs from wherever its host is: the link's contract, and the arrays that links hand out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from arrayhost.core.handles import ArrayHandle
from arrayhost.errors import UnsupportedError
from arrayhost.sync.guards import current_owner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.core.handles import ObjectHandle
    from arrayhost.core.layout import Layout
    from arrayhost.evaluation.operations import Operation
    from arrayhost.memory.segments import Mapping as SegmentMapping
    from arrayhost.sync.guards import Guard, Hold

__all__ = ["Lease", "Link", "MappedSource", "Source"]


class Link(Protocol):
    """A way to a host: a session over a socket, or a direct call inside the host itself."""

    @property
    def address(self) -> str:
        """Where the host listens."""

    @property
    def host_id(self) -> bytes:
        """Which host it is, across changes of address."""

    @property
    def mode(self) -> str:
        """``"r+"``, or ``"r"`` if it refuses every change."""

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """TCP addresses by which processes on other machines may reach the host; empty if this is such a way itself."""

    @property
    def credentials(self) -> tuple[bytes | None, Any]:
        """The key, and the certificates' files, with which the host was reached; None where there was no need."""

    @property
    def is_remote(self) -> bool:
        """Whether it goes over the network: no memory, functions or pickles pass."""

    @property
    def lock_timeout(self) -> float:
        """Seconds that its users wait for a lock by default."""

    def evaluate(self, operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate an operation in the host; proxies may stand anywhere in the arguments."""

    def apply(self, target: Any, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float) -> Any:
        """Call a function in the host with a copy of an array that is written back; `Written` if it returns that."""

    def set_item(self, target: Any, index: Any, value: Any) -> None:
        """Carry out ``target[index] = value`` in the host, for a proxy `target`."""

    def snapshot(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Have the host copy proxies of one array under one hold of its lock."""

    def call(self, handle: ObjectHandle, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of a hosted object."""

    def attributes(
        self, handle: ArrayHandle, changes: Mapping[str, Any], removed: Sequence[str], mode: str
    ) -> dict[str, Any]:
        """Read or change an array's attributes; return what they were before."""

    def seems_ended(self) -> bool:
        """Whether the host has ended, as far as is known without asking it; at most 50 ms out of date."""

    def export(self, ident: int) -> None:
        """Tell the host that a handle of the referent is being pickled."""

    def watch(self, lease: Lease) -> None:
        """Give back what `lease` counts when it dies."""


class Lease:
    """The leases that one process has of one referent; ends with the last proxy.

    Attributes
    ----------
    ident : int
    count : list of int
        One number: leases granted so far. Shared with the link, which must not know the object.
    """

    __slots__ = ("__weakref__", "count", "exported", "ident", "link")

    def __init__(self, link: Link, ident: int) -> None:
        self.link = link
        self.ident = ident
        self.count = [0]
        self.exported = False
        link.watch(self)

    def export(self) -> None:
        """Make sure that the referent outlives its leases for as long as a pickled handle may need."""
        if not self.exported:
            self.link.export(self.ident)
            self.exported = True


class Source(Lease):
    """One hosted array as this process knows it; all proxies of the array and its views share it.

    By itself it has no memory: proxies of it send everything to the host.

    Attributes
    ----------
    slot, generation : int
        The array's row of the host's control table, and which of the row's successive arrays it is.
    segment, start, n_bytes : int
        The array's place, as its handles name it.
    whole : Layout or None
        The whole array's place, where this process has learned it.
    named : tuple or None
        The name by which it was found last, and the view that the name stands for.
    """

    __slots__ = ("generation", "n_bytes", "named", "segment", "slot", "start", "whole")

    def __init__(self, link: Link, array: ArrayHandle) -> None:
        super().__init__(link, array.ident)
        self.slot, self.generation = array.slot, array.generation
        self.segment, self.start, self.n_bytes = array.segment, array.start, array.n_bytes
        self.whole: Layout | None = None
        self.named: tuple[str, Layout] | None = None

    def handle_for(self, layout: Layout) -> ArrayHandle:
        """Name a view of this array."""
        return ArrayHandle(self.ident, self.slot, self.generation, self.segment, self.start, self.n_bytes, layout)

    def hold(self) -> Hold | None:
        """Return the hold that the calling thread or task has on the array's lock, if it has one in this process."""
        return None

    def reach(self) -> MappedSource:
        """Return the array as it is mapped in this process, for sections.

        Raises
        ------
        UnsupportedError
            It is not.
        """
        raise UnsupportedError(
            f"a section is direct access to memory, and this process has not mapped the arrays of {self.link.address}; "
            "use writes that the host carries out, such as a[i:j] += 1"
        )


class MappedSource(Source):
    """One hosted array as this process has it mapped.

    It lives, and with it the lease, as long as any proxy or any ndarray made from the memory: the host may give the
    place of an array that nobody leases to another.

    Parameters
    ----------
    array : ArrayHandle
        As its host gave it.
    guard : Guard
    segment : SegmentMapping
        The segment that it lies in.

    Attributes
    ----------
    guard : Guard
    mapping : SegmentMapping
        The array's part of the segment.

    Raises
    ------
    ProtocolError
        The part is not inside the segment.
    """

    __slots__ = ("_whole_segment", "guard", "mapping")

    def __init__(self, link: Link, array: ArrayHandle, guard: Guard, segment: SegmentMapping) -> None:
        super().__init__(link, array)
        self.guard = guard
        self.mapping = segment.part(array.start, array.n_bytes, owner=self)
        self._whole_segment = segment  # so that the process finds it, and does not map it twice

    def hold(self) -> Hold | None:
        """Return the hold that the calling thread or task has on the array's lock, if it has one in this process."""
        guard = self.guard
        return guard.holds(current_owner()) if guard.exclusive is not None or guard.shared else None

    def reach(self) -> MappedSource:
        """Return the array as it is mapped in this process, for sections."""
        return self
